"""List videos, with what is known about them, and the segments that someone annotated."""

from kfp import dsl

from components._artifacts import VideoSet
from components._images import image


@dsl.component(base_image=image("ingest_videos"), install_kfp_package=False)
def ingest_videos(
    source_uri: str,
    source: str,
    annotations_uri: str,
    stages: dict,
    output_root: str,
    videos: dsl.Output[VideoSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """List videos, with what is known about them, and the segments that someone annotated."""
    from robolift.stages.component import run_check, run_component
    from robolift.stages.preflight import split_source

    recording, videos_uri = run_check(split_source, source_uri)
    return run_component(
        "ingest_videos",
        artifact=videos,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"recording": recording},
        source=source,
        annotations_uri=annotations_uri,
        videos_uri=videos_uri,
    )

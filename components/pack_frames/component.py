"""Decode a dataset's videos once, into the pictures that a later step will look at."""

from kfp import dsl

from components._artifacts import EpisodeDataset, FrameCache
from components._images import image


@dsl.component(base_image=image("pack_frames"), install_kfp_package=False)
def pack_frames(
    dataset: dsl.Input[EpisodeDataset],
    consumer: str,
    stages: dict,
    output_root: str,
    frames: dsl.Output[FrameCache],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Decode a dataset's videos once, into the pictures that stage `consumer` will look at."""
    from robolift.stages.component import run_check, run_component
    from robolift.stages.frame_views import view_of

    view = run_check(view_of, consumer, stages)
    return run_component(
        "pack_frames",
        artifact=frames,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
        cameras=view.cameras,
        size=view.size,
        padded=view.padded,
    )

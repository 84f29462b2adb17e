"""Cut clips of equal length, rate and size from videos."""

from kfp import dsl

from components._artifacts import ClipSet, VideoSet
from components._images import image


@dsl.component(base_image=image("extract_clips"), install_kfp_package=False)
def extract_clips(
    videos: dsl.Input[VideoSet],
    seed: int,
    stages: dict,
    output_root: str,
    clips: dsl.Output[ClipSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Cut clips of equal length, rate and size from videos."""
    from robolift.stages.component import run_component

    return run_component(
        "extract_clips",
        artifact=clips,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"videos": videos},
        seed=seed,
    )

"""Take what online_rl's robots recorded as a LeRobot recording."""

from kfp import dsl

from components._artifacts import Recording
from components._images import image


@dsl.component(base_image=image("import_replay_buffer"), install_kfp_package=False)
def import_replay_buffer(
    buffer_uri: str,
    task: str,
    stages: dict,
    output_root: str,
    recording: dsl.Output[Recording],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Take what online_rl's robots recorded as a LeRobot recording."""
    from robolift.stages.component import run_component

    return run_component(
        "import_replay_buffer",
        artifact=recording,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        buffer_uri=buffer_uri,
        task=task,
    )

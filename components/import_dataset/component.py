"""Validate a recording or any LeRobot dataset, and describe its episodes and frames."""

from kfp import dsl

from components._artifacts import EpisodeDataset
from components._images import image


@dsl.component(base_image=image("import_dataset"), install_kfp_package=False)
def import_dataset(
    source_uri: str,
    previous_uri: str,
    iteration: int,
    stages: dict,
    output_root: str,
    dataset: dsl.Output[EpisodeDataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Validate a recording or any LeRobot dataset, and describe its episodes and frames."""
    from robolift.stages.component import run_check, run_component
    from robolift.stages.preflight import split_source

    recording, dataset_uri = run_check(split_source, source_uri)
    return run_component(
        "import_dataset",
        artifact=dataset,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"recording": recording, "previous": previous_uri},
        dataset_uri=dataset_uri,
        iteration=iteration,
    )

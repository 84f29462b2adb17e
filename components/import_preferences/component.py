"""Take people's comparisons, and measure how far they can be trusted."""

from kfp import dsl

from components._artifacts import ClipSet, PairSet, PreferenceSet
from components._images import image


@dsl.component(base_image=image("import_preferences"), install_kfp_package=False)
def import_preferences(
    pairs: dsl.Input[PairSet],
    clips: dsl.Input[ClipSet],
    preferences_uri: str,
    stages: dict,
    output_root: str,
    preferences: dsl.Output[PreferenceSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Take people's comparisons, and measure how far they can be trusted."""
    from robolift.stages.component import run_component

    return run_component(
        "import_preferences",
        artifact=preferences,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"pairs": pairs, "clips": clips},
        preferences_uri=preferences_uri,
    )

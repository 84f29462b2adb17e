"""Choose pairs of clips for people to compare."""

from kfp import dsl

from components._artifacts import ClipSet, PairSet
from components._images import image


@dsl.component(base_image=image("propose_pairs"), install_kfp_package=False)
def propose_pairs(
    clips: dsl.Input[ClipSet],
    num_pairs: int,
    seed: int,
    stages: dict,
    output_root: str,
    pairs: dsl.Output[PairSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Choose pairs of clips for people to compare."""
    from robolift.stages.component import run_component

    return run_component(
        "propose_pairs",
        artifact=pairs,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"clips": clips},
        num_pairs=num_pairs,
        seed=seed,
    )

"""Check a stage_advantage run before anything is spent, and say what each of its two datasets is told."""

from typing import List, NamedTuple

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("plan_stage_advantage"), install_kfp_package=False)
def plan_stage_advantage(
    output_root: str,
    labelled_uri: str,
    new_uri: str,
    head: str,
    lookahead: int,
    positive_fraction: float,
    num_task_stages: int,
    num_shards: int,
    baselines: List[str],
    seed: int,
    stages: dict,
    new_stages: dict,
) -> NamedTuple(
    "RunPlan",
    [("labelled_uri", str), ("new_uri", str), ("labelled_stages", dict), ("new_stages", dict), ("new_seed", int)],
):
    """Check a run before anything is spent; return what the steps on labelled and on new episodes are told."""
    from robolift.stages import stage_advantage_plan
    from robolift.stages.component import run_check

    return run_check(
        stage_advantage_plan.plan,
        output_root=output_root,
        labelled_uri=labelled_uri,
        new_uri=new_uri,
        head=head,
        lookahead=lookahead,
        positive_fraction=positive_fraction,
        num_task_stages=num_task_stages,
        num_shards=num_shards,
        baselines=baselines,
        seed=seed,
        stages=stages,
        new_stages=new_stages,
    )

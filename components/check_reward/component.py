"""End a run with an error where its reward did not pass, after the report that says why."""

from kfp import dsl

from components._artifacts import RewardValidation, RunCard
from components._images import image


@dsl.component(base_image=image("check_reward"), install_kfp_package=False)
def check_reward(validation: dsl.Input[RewardValidation], report: dsl.Input[RunCard]) -> bool:
    """End a run with an error where its reward did not pass, after the report that says why."""
    from robolift.stages.clips_plan import check_passed
    from robolift.stages.component import run_check

    return run_check(check_passed, validation.path, report.path)

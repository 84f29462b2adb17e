"""Which episodes are made from which seeds, and the names that need no simulator."""

from __future__ import annotations

import pytest

from robolift.errors import UsageError
from robolift.sim import tasks
from robolift.sim.plans import (
    Behaviour,
    EpisodePlan,
    behaviours,
    check_fresh,
    evaluation_seeds,
    recording_seeds,
)


def test_demonstrations_come_first_and_takeovers_last():
    assert behaviours(demos=1, autonomous=2, takeovers=1) == ["demo", "autonomous", "autonomous", "takeover"]


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [(Behaviour.DEMO, "demo"), (Behaviour.AUTONOMOUS, "rollout"), (Behaviour.TAKEOVER, "rollout")],
)
def test_an_episode_is_a_demonstration_only_if_the_expert_did_it_all(behaviour, kind):
    assert EpisodePlan(index=0, seed=0, behaviour=behaviour).kind == kind


def test_runs_have_seeds_of_their_own():
    assert recording_seeds(0, 3) == range(3)
    assert recording_seeds(7, 200) == range(700_000, 700_200)
    assert evaluation_seeds(7, 100) == range(1_000_700_000, 1_000_700_100)


def test_no_evaluation_seed_is_ever_recorded():
    last_scripted, first_of_policies = recording_seeds(9999, 100_000)[-1], 2_000_000_000
    assert last_scripted == 999_999_999
    assert evaluation_seeds(0, 1)[0] == 1_000_000_000
    assert evaluation_seeds(9999, 100_000)[-1] == 1_999_999_999
    assert recording_seeds(0, 1, policy_digest="0" * 16)[0] == first_of_policies
    assert recording_seeds(9999, 100_000, policy_digest="f" * 16)[-1] < 2**32


def test_another_policy_records_other_scenes():
    first, second = (
        recording_seeds(0, 200, policy_digest=digest) for digest in ("00000000000000a1", "00000000000000a2")
    )
    assert not set(first) & set(second)
    assert recording_seeds(0, 200, policy_digest="00000000000000a1") == first


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: recording_seeds(10_000, 1), "seed 10000 is out of range, expected 0 to 9999"),
        (lambda: evaluation_seeds(-1, 1), "seed -1 is out of range"),
        (lambda: recording_seeds(0, 100_001), "at most 100000"),
        (lambda: recording_seeds(10_000, 1, policy_digest="a1"), "seed 10000 is out of range"),
    ],
)
def test_seeds_out_of_range_are_refused(call, said):
    with pytest.raises(UsageError, match=said):
        call()


def test_evaluating_on_recorded_scenes_is_refused():
    with pytest.raises(UsageError, match="scenes 108 to 109 are in the training data"):
        check_fresh(range(100, 110), [{"seeds": [108, 50]}])


@pytest.mark.parametrize("simulator", [{"seeds": [110, 5]}, {"seeds": [95, 5]}, {}])
def test_scenes_beside_the_recorded_ones_are_fresh(simulator):
    check_fresh(range(100, 110), [simulator])


def test_one_of_several_recordings_is_enough_to_refuse():
    with pytest.raises(UsageError, match="scenes 105 to 105"):
        check_fresh(range(100, 110), [{"seeds": [0, 5]}, {"seeds": [105, 1]}])


def test_cameras_have_a_feature_name_and_back():
    assert tasks.camera_key("topview") == "observation.images.topview"
    assert tasks.camera_name("observation.images.gripperPOV") == "gripperPOV"
    with pytest.raises(UsageError, match=r"no camera 'observation\.images\.wrist'; it has: topview"):
        tasks.camera_name("observation.images.wrist")


def test_an_unknown_task_is_refused_with_the_list():
    assert tasks.check_task("push-v3") == "push-v3"
    with pytest.raises(UsageError, match="no Meta-World task 'push'; there are: assembly-v3"):
        tasks.check_task("push")


def test_each_task_has_its_own_instruction():
    assert len(tasks.TASKS) == 50
    assert len(set(tasks.TASKS.values())) == 50

"""What a stage_advantage run tells the steps on labelled and on new episodes, and what it refuses beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robolift.errors import DataError, UsageError
from robolift.stages import stage_advantage_plan
from robolift.stages.stage_advantage_plan import RunPlan

PI06 = "ADVANTAGE_TORCH_PI06_FLATTEN_FOLD"


def plan(tmp_path: Path, **changes: Any) -> RunPlan:
    given: dict[str, Any] = {
        "output_root": str(tmp_path),
        "labelled_uri": "",
        "new_uri": "",
        "head": "relative",
        "lookahead": 50,
        "positive_fraction": 0.3,
        "num_task_stages": 1,
        "num_shards": 2,
        "baselines": ["plain"],
        "seed": 0,
        "stages": {},
        "new_stages": {},
    }
    return stage_advantage_plan.plan(**{**given, **changes})


def test_labelled_frames_are_cut_by_their_annotation_and_new_ones_by_the_estimator(tmp_path: Path):
    found = plan(tmp_path)
    labelled, new = found.labelled_stages["label_advantage"], found.new_stages["label_advantage"]
    assert (labelled["source"], labelled["column"]) == ("progress", "stage_progress_gt")
    assert new["source"] == "absolute_advantage"
    for config in (labelled, new):
        assert (config["population"], config["demo"], config["intervention"]) == ("all", "score", "positive")
        assert (config["group_by"], config["num_task_stages"]) == ("task", 1)
        assert not set(config) & {"lookahead", "positive_fraction"}  # the pipeline hands them to the step itself
    assert found.labelled_stages["predict_values"] == found.new_stages["predict_values"] == {"lookahead": 50}


def test_task_stages_are_those_of_the_annotation_or_of_the_prediction(tmp_path: Path):
    found = plan(tmp_path, num_task_stages=2)
    labelled, new = found.labelled_stages["label_advantage"], found.new_stages["label_advantage"]
    assert (labelled["group_by"], labelled["num_task_stages"]) == ("task_stage", 2)
    assert labelled["stage_progress_column"] == "stage_progress_gt"
    assert new["stage_progress_column"] == "value"
    assert found.new_stages["write_report"] == {"num_task_stages": 2}


def test_an_annotation_of_another_name_is_the_labelled_episodes_alone(tmp_path: Path):
    found = plan(tmp_path, num_task_stages=2, stages={"train_value": {"progress_column": "done"}})
    told = (found.labelled_stages, found.new_stages)
    assert [stages["label_advantage"]["stage_progress_column"] for stages in told] == ["done", "value"]
    named = {"label_advantage": {"stage_progress_column": "part"}}
    found = plan(tmp_path, num_task_stages=2, stages=named)
    told = (found.labelled_stages, found.new_stages)
    assert [stages["label_advantage"]["stage_progress_column"] for stages in told] == ["part", "value"]
    assert (
        plan(tmp_path, num_task_stages=2, new_stages=named).new_stages["label_advantage"]["stage_progress_column"]
        == "part"
    )


def test_stages_may_be_asked_for_in_either_place(tmp_path: Path):
    found = plan(tmp_path, num_task_stages=2, stages={"label_advantage": {"group_by": "task_stage"}})
    assert found.new_stages["label_advantage"]["num_task_stages"] == 2


def test_the_one_value_model_is_told_the_same_of_new_episodes(tmp_path: Path):
    stages = {"train_value": {"image_size": [64, 80]}}
    found = plan(tmp_path, stages=stages, new_stages={"train_value": {"image_size": [32, 32], "cameras": []}})
    assert found.new_stages["train_value"] == found.labelled_stages["train_value"] == stages["train_value"]


def test_what_is_set_wins_and_new_stages_win_over_stages(tmp_path: Path):
    stages = {
        "simulate_episodes": {"num_demos": 9, "cameras": []},
        "label_advantage": {"source": "relative_advantage"},
        "train_value": {"progress_column": "done"},
        "train_policy": {"state_keys": ["observation.state", "observation.environment_state"]},
        "write_report": {"num_task_stages": 5},
    }
    found = plan(tmp_path, stages=stages, new_stages={"simulate_episodes": {"num_demos": 2}})
    assert found.labelled_stages["simulate_episodes"] == {"num_demos": 9, "cameras": []}
    assert found.new_stages["simulate_episodes"] == {"num_demos": 2, "cameras": []}
    assert found.labelled_stages["label_advantage"]["source"] == "progress"
    assert found.labelled_stages["label_advantage"]["column"] == "done"
    assert found.new_stages["label_advantage"]["source"] == "relative_advantage"
    assert found.new_stages["compute_norm_stats"]["state_keys"] == stages["train_policy"]["state_keys"]
    assert found.new_stages["write_report"]["num_task_stages"] == 5


def test_kai0_s_flags_are_taken_and_may_not_contradict_the_run(tmp_path: Path):
    found = plan(tmp_path, stages={"label_advantage": {"kai0": "--threshold 30 --chunk-size 50 --stage-nums 2"}})
    labels = found.new_stages["label_advantage"]
    assert (labels["group_by"], labels["num_task_stages"], labels["stage_progress_column"]) == (
        "task_stage",
        2,
        "value",
    )
    assert found.new_stages["write_report"]["num_task_stages"] == 2
    with pytest.raises(UsageError, match="threshold 40 means positive_fraction"):
        plan(tmp_path, stages={"label_advantage": {"threshold": 40}})


def test_new_episodes_have_scenes_of_their_own(tmp_path: Path):
    assert [plan(tmp_path, seed=seed).new_seed for seed in (0, 3, 5000, 9999)] == [5000, 5003, 0, 4999]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled_uri": "s3://a"}, "labelled_uri is given and new_uri is empty"),
        ({"new_uri": "s3://a"}, "new_uri is given and labelled_uri is empty"),
        ({"head": "distribution"}, "stage_advantage takes relative or single"),
        ({"head": "double"}, "head: Input should be"),
        ({"baselines": []}, "baselines is empty"),
        ({"baselines": ["best"]}, "train_policy.variant"),
        ({"positive_fraction": 30}, "positive_fraction"),
        ({"stages": {"label_advantage": {"preset": "recap"}}}, "needs value targets"),
        ({"stages": {"train_value": {"stepps": 3}}}, "train_value.stepps"),
        ({"new_stages": {"train_policy": {"steps": 0}}}, "train_policy.steps"),
        ({"num_shards": 65}, "num_shards is 65, expected at most 64"),
        ({"seed": 10_000}, "seed: "),
        ({"num_task_stages": 0}, "num_task_stages: "),
        ({"num_task_stages": 65}, "num_task_stages: .* 64"),
        (
            {"stages": {"train_value": {"recipe": PI06}}},
            f"{PI06} has head single, and head is relative; set head: single",
        ),
        ({"new_stages": {"predict_values": {"lookahead": 8}}}, "lookahead is 8, and lookahead is 50; leave it out"),
        ({"head": "single", "stages": {"label_advantage": {"source": "relative_advantage"}}}, "set head: relative"),
        ({"stages": {"label_advantage": {"lookahead": 9}}}, "use its parameter lookahead instead"),
        ({"stages": {"train_value": {"head": "single"}}}, "use its parameter head instead"),
        ({"stages": {"import_dataset": {"iteration": 2}}}, "stages.import_dataset.iteration: the pipeline sets it"),
        ({"new_stages": {"simulate_episodes": {"seed": 4}}}, "new_stages.simulate_episodes.seed: the pipeline sets it"),
        ({"new_stages": {"train_policy": 4}}, "new_stages.train_policy is 4, expected a mapping"),
        ({"output_root": "/proc/nowhere"}, "can't be written"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, **changes)


def test_each_wrong_parameter_is_named_once(tmp_path: Path):
    wrong = {"train_value": {"steps": 0}, "train_policy": None}
    with pytest.raises(UsageError) as caught:
        plan(tmp_path, stages=wrong, new_stages={"train_value": {"warmup_steps": -1}}, lookahead=0, seed=-1)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "wrong",
        "seed:",
        "stages.train_value.steps:",
        "lookahead:",
        "new_stages.train_value.warmup_steps:",
    ]


def test_an_address_without_a_dataset_is_missed_before_the_other_is_read(tmp_path: Path):
    missing = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no LeRobot dataset") as caught:
        plan(tmp_path, labelled_uri=missing, new_uri=missing)
    assert caught.value.where == missing

"""What a reward_labeling run is checked for before it spends anything, and what its steps are told."""

from __future__ import annotations

import pytest

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.stages import labeling_plan

GOOD = {
    "dataset_uri": "",
    "mode": "label",
    "model": "cosmos",
    "endpoint": "http://vllm:8000/v1",
    "protocol": "logprob",
    "reviews_uri": "",
    "reward": "difference",
    "num_shards": 2,
    "seed": 0,
    "stages": {},
}


def plan(output_root, **changed):
    return labeling_plan.plan(output_root=output_root, **{**GOOD, **changed})


def folder_with(path, name):
    path.mkdir()
    (path / name).write_text("{}")
    return str(path)


def test_a_good_run_is_told_its_dataset_and_exports_rewards(recording_uri, output_root):
    told = plan(output_root, dataset_uri=recording_uri, stages={"plan_labels": {"max_frames": 4}, "write_report": None})
    assert told.dataset_uri == recording_uri
    assert told.stages == {
        "plan_labels": {"max_frames": 4},
        "write_report": {},
        "export_dataset": {"columns": ["rewards"]},
    }
    assert list(storage.list_files(output_root)) == []  # of the probe nothing is left


CALIBRATED = {"collect_rewards": {"calibration": "isotonic"}}


def test_the_plan_is_told_how_many_outcomes_calibration_needs(output_root):
    assert plan(output_root, stages=CALIBRATED).stages["plan_labels"] == {"min_calibration_episodes": 10}
    stages = {"collect_rewards": {"calibration": "isotonic", "min_calibration_episodes": 3}, "plan_labels": None}
    assert plan(output_root, stages=stages).stages["plan_labels"] == {"min_calibration_episodes": 3}


def test_what_works_together_is_not_refused(output_root, tmp_path):
    reviews = folder_with(tmp_path / "labels", "job.json")
    for reward in ("tri", "human"):
        plan(output_root, mode="import_reviews", reviews_uri=reviews, reward=reward)
    plan(output_root, protocol="rubric", reward="sparse_success", stages=CALIBRATED)
    for reward in ("difference", "level"):
        plan(output_root, protocol="rubric", reward=reward, stages={"plan_labels": {"sampling": "causal_prefix"}})
        # People's task stages may give the progress that the model does not.
        plan(output_root, protocol="rubric", reward=reward, mode="import_reviews", reviews_uri=reviews)


def test_a_run_s_own_columns_are_exported(output_root):
    told = plan(output_root, stages={"export_dataset": {"columns": ["rewards", "rabc_weights"], "unlabelled": "nan"}})
    assert told.stages["export_dataset"] == {"columns": ["rewards", "rabc_weights"], "unlabelled": "nan"}


def test_people_s_labels_alone_need_no_model(output_root, tmp_path):
    reviews = folder_with(tmp_path / "labels", "job.json")
    told = plan(output_root, mode="import_reviews", reviews_uri=reviews, model="", endpoint="")
    assert told.dataset_uri == ""


def test_a_model_in_the_step_is_a_folder_with_its_weights(output_root, tmp_path):
    plan(output_root, model=folder_with(tmp_path / "model", "config.json"), endpoint="")
    with pytest.raises(DataError, match=r"no model[^$]*config.json beside the weights"):
        plan(output_root, model=str(tmp_path), endpoint="")
    plan(output_root, model=str(tmp_path))  # a name at a server, which alone knows it


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "labels"}, "mode is labels, expected label or import_reviews"),
        ({"model": ""}, "endpoint is given and model is empty"),
        ({"model": "", "endpoint": ""}, "model is empty, and mode label asks one"),
        ({"reviews_uri": "s3://b/l"}, "mode label imports nothing"),
        ({"mode": "import_reviews"}, "reviews_uri is empty"),
        ({"endpoint": "vllm"}, "endpoint is vllm, expected an address"),
        ({"endpoint": "http://me:pw@vllm/v1"}, "a key goes into the variable ROBOLIFT_VLM_API_KEY"),
        ({"protocol": "guess"}, "protocol: "),
        ({"reward": "gain"}, "reward: "),
        (
            {"reward": "tri"},
            "reward is tri, which people mark, and mode label .*; set reward: .* or mode: import_reviews",
        ),
        ({"reward": "human"}, "reward is human, which people mark, and mode label"),
        (
            {"protocol": "rubric"},
            "reward is difference, .* protocol rubric with sampling whole .*causal_prefix, reward: ",
        ),
        ({"protocol": "rubric", "reward": "level"}, "reward is level, .* protocol rubric with sampling whole"),
        (
            {"protocol": "shuffled", "stages": CALIBRATED},
            "stages.collect_rewards.calibration is isotonic and protocol is shuffled, .* protocol: logprob or rubric",
        ),
        ({"protocol": "pairwise", "stages": CALIBRATED}, "calibration is isotonic and protocol is pairwise"),
        ({"protocol": "head", "stages": CALIBRATED}, "calibration is isotonic and protocol is head"),
        (
            {"model": "", "endpoint": "", "mode": "import_reviews", "reviews_uri": "s3://b/l", "stages": CALIBRATED},
            "calibration is isotonic and model is empty, .* protocol: logprob or rubric and a model",
        ),
        ({"num_shards": 0}, "num_shards: "),
        ({"seed": 10_000}, "seed: "),
        ({"stages": {"merge_rewards": {"reward": "level"}}}, "stages.merge_rewards.reward: the pipeline sets it"),
        ({"stages": {"label_quality": {"min_coverage": 2}}}, "stages.label_quality.min_coverage"),
        ({"stages": {"export_dataset": {"columns": []}}}, "stages.export_dataset.columns"),
        ({"stages": {"train_policy": {}}}, "stages.train_policy: no such stage; there are: simulate_episodes"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_written(output_root, wrong, message):
    with pytest.raises(UsageError, match=message):
        plan(output_root, **wrong)
    assert not storage.exists(output_root)


def test_an_address_without_a_dataset_or_without_labels_is_refused(output_root, tmp_path):
    with pytest.raises(DataError, match="no LeRobot dataset"):
        plan(output_root, dataset_uri=str(tmp_path))
    with pytest.raises(DataError, match="no labels"):
        plan(output_root, mode="import_reviews", reviews_uri=str(tmp_path / "nowhere"))


def test_an_output_root_that_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="output_root"):
        plan(str(tmp_path / "file" / "runs"))

"""What a run is checked for before it spends anything."""

from __future__ import annotations

import pytest

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.stages import preflight, stage_advantage_plan

GOOD = {
    "stages": {},
    "lookahead": 50,
    "positive_fraction": 0.3,
    "num_shards": 2,
    "baselines": ["plain"],
    "seed": 0,
}


def check_run(output_root, *, iteration=1, source_uris=("",), **changed):
    return preflight.check_run(
        output_root=output_root, iteration=iteration, source_uris=list(source_uris), **{**GOOD, **changed}
    )


def test_a_good_run_is_told_where_its_episodes_come_from(recording_uri, output_root):
    sources = (recording_uri, "")
    assert check_run(output_root, source_uris=sources) == recording_uri
    assert check_run(output_root, iteration=2, source_uris=sources) == ""
    assert check_run(output_root, iteration=3, source_uris=sources) == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lookahead": 0}, "lookahead: "),
        ({"positive_fraction": 30.0}, "positive_fraction: "),
        ({"num_shards": 0}, "num_shards: "),
        ({"num_shards": 65}, "num_shards is 65, expected at most 64"),
        ({"seed": 10_000}, "seed: "),
        ({"seed": -1}, "seed: "),
        ({"baselines": []}, "baselines is empty"),
        ({"baselines": ["best"]}, "baselines: train_policy.variant"),
        ({"stages": {"train_valu": {}}}, "stages.train_valu: no such stage"),
        ({"stages": {"train_value": {"stepps": 3}}}, "stages.train_value.stepps: "),
        ({"stages": {"train_value": 3}}, "stages.train_value is 3, expected a mapping"),
        ({"stages": {"label_advantage": {"lookahead": 9}}}, "use its parameter lookahead instead"),
        ({"stages": {"predict_values": {"shard": 0}}}, "use its parameter num_shards instead"),
        ({"stages": {"train_policy": {"variant": "plain"}}}, "use its parameter baselines instead"),
        ({"stages": {"import_dataset": {"iteration": 1}}}, "use its parameter iterations instead"),
    ],
)
def test_a_wrong_parameter_stops_the_run_at_once_and_is_named_once(output_root, wrong, message):
    with pytest.raises(UsageError) as caught:
        check_run(output_root, **wrong)
    assert str(caught.value).count(message) == 1
    assert not storage.local_path(output_root).exists()


TOWERS = {"preset": "siglip_gemma_dummy", "tokenizer": "words.model"}
OWN = {"preset": "dummy", "tokenizer": "words.model", "cameras": ["top"]}


def test_a_policy_that_waits_for_an_encoder_of_towers_is_refused_before_the_towers_are_trained(output_root):
    with pytest.raises(UsageError, match=r"vision is frozen(.|\n)*siglip_gemma_dummy(.|\n)*vision: none"):
        check_run(output_root, stages={"train_value": TOWERS})
    for policy in ({"vision": "none"}, OWN):
        assert check_run(output_root, stages={"train_value": TOWERS, "train_policy": policy}) == ""


def test_in_stage_advantage_the_value_model_is_what_the_first_layer_says():
    layers = {"stages": {"train_value": TOWERS}, "new_stages": {}}
    assert [line for line in stage_advantage_plan.find_problems(layers) if "vision is frozen" in line]
    layers["new_stages"] = {"train_policy": {"vision": "none"}}
    assert stage_advantage_plan.find_problems(layers) == []


def test_a_precision_that_the_value_model_cannot_predict_in_is_refused_before_it_is_trained(output_root):
    asked = {"predict_values": {"precision": "bfloat16"}}
    with pytest.raises(UsageError, match=r"predict_values\.precision is bfloat16, train_value\.preset tiny predicts"):
        check_run(output_root, stages=asked)
    assert check_run(output_root, stages={**asked, "train_value": TOWERS, "train_policy": {"vision": "none"}}) == ""
    assert len(stage_advantage_plan.find_problems({"stages": {}, "new_stages": asked})) == 1
    assert len(stage_advantage_plan.find_problems({"stages": asked, "new_stages": {}})) == 1


def test_a_stage_without_settings_is_fine(output_root):
    assert check_run(output_root, stages={"label_returns": None, "train_policy": None}) == ""


def test_each_wrong_parameter_is_named(output_root):
    with pytest.raises(UsageError) as caught:
        check_run(output_root, lookahead=0, stages={"train_value": {"steps": 0}}, num_shards=65)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "wrong",
        "stages.train_value.steps:",
        "lookahead:",
        "num_shards",
    ]


def test_a_later_iteration_s_dataset_is_missed_in_the_first(recording_uri, output_root, tmp_path):
    missing = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no LeRobot dataset") as caught:
        check_run(output_root, source_uris=(recording_uri, "", missing))
    assert caught.value.where == missing


def test_shards_are_those_that_prediction_cuts_into():
    assert preflight.plan_shards(3) == [0, 1, 2]
    assert len(preflight.plan_shards(preflight.MOST_SHARDS)) == preflight.MOST_SHARDS
    for wrong in (0, preflight.MOST_SHARDS + 1):
        with pytest.raises(UsageError, match=f"num_shards is {wrong}"):
            preflight.plan_shards(wrong)


def test_two_runs_with_one_process_id_do_not_meet_in_their_probe(output_root, monkeypatch):
    written = []
    write_bytes = storage.write_bytes

    def write(uri, content):
        written.append(uri)
        write_bytes(uri, content)

    monkeypatch.setattr(storage, "write_bytes", write)
    preflight.probe_writable(output_root)
    preflight.probe_writable(output_root)
    assert len(set(written)) == 2
    assert list(storage.local_path(output_root).iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"output_root {tmp_path}/file/runs can't be written"):
        preflight.probe_writable(f"{tmp_path}/file/runs")

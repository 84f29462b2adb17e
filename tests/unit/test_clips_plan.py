"""What a clip_reward run is checked for before it spends anything, and the gate behind its report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.stages import clips_plan, preflight, validate_reward
from robolift.stages.stage import execute

GOOD: dict[str, Any] = {
    "videos_uri": "",
    "source": "folder",
    "annotations_uri": "",
    "mode": "prepare",
    "preferences_uri": "",
    "encoder": "",
    "hand_model": "",
    "num_pairs": 300,
    "num_shards": 2,
    "seed": 0,
    "stages": {"extract_features": {"extractors": ["blur", "motion"]}},
}


def check(output_root: str, **changed: Any) -> str:
    return clips_plan.check(output_root=output_root, **{**GOOD, **changed})


def test_a_good_run_is_told_its_videos_and_leaves_nothing_behind(output_root, tmp_path):
    assert check(output_root) == ""
    assert check(output_root, videos_uri=str(tmp_path)) == str(tmp_path)
    assert list(storage.list_files(output_root)) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "both"}, "mode is both, expected one of: prepare, train, simulate"),
        ({"mode": "train"}, "preferences_uri is empty"),
        ({"preferences_uri": "x"}, "mode prepare imports none"),
        ({"mode": "simulate", "videos_uri": "x"}, "simulated annotators know only simulated videos"),
        ({"source": "gopro"}, "source: "),
        ({"stages": {}}, "extractor hands needs hand_model"),
        ({"stages": {**GOOD["stages"], "train_value": {}}}, "stages.train_value: no such stage"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_written(tmp_path, wrong, message):
    root = tmp_path / "never"
    with pytest.raises(UsageError, match=message):
        check(str(root), **wrong)
    assert not root.exists()


@pytest.mark.parametrize("name", ["videos_uri", "encoder", "hand_model"])
def test_an_address_with_nothing_is_an_error(output_root, tmp_path, name):
    with pytest.raises(DataError, match=rf"nothing is there[^$]*{clips_plan.ADDRESSES[name][:20]}"):
        check(output_root, **{name: str(tmp_path / "nowhere")})


def test_comparisons_that_are_not_there_are_an_error(output_root, tmp_path):
    with pytest.raises(DataError, match="robolift review --labels"):
        check(output_root, mode="train", preferences_uri=str(tmp_path / "nowhere"))
    (tmp_path / "answers.csv").write_text("pair_id\n")
    check(output_root, mode="train", preferences_uri=str(tmp_path / "answers.csv"))


def test_an_address_is_any_file_or_folder(tmp_path):
    assert preflight.check_address(str(tmp_path)) == str(tmp_path)
    with pytest.raises(DataError, match="nothing is there"):
        preflight.check_address(str(tmp_path / "no"))


@pytest.fixture
def validated(monkeypatch, output_root):
    """Give the address of a validation with a document of one's own."""

    def make(**document: Any) -> str:
        monkeypatch.setattr(validate_reward, "INPUTS", {})
        monkeypatch.setattr(
            validate_reward, "run", lambda _c, _i, output: output.write_json("validation.json", document) or {}
        )
        return execute("validate_reward", {"seed": len(json.dumps(document))}, {}, output_root).uri

    return make


def test_the_gate_names_the_reasons_and_the_report(validated):
    reasons = {"gate": True, "passed": False, "reasons": ["rho 0.2 is below 0.5"], "rho_min": 0.5}
    report = validated(gate=False, passed=True)
    with pytest.raises(DataError, match=r"did not pass: rho 0.2 is below 0.5[^$]*report.html"):
        clips_plan.check_passed(validated(**reasons), report)
    assert clips_plan.check_passed(validated(**{**reasons, "gate": False}), report) is False
    assert clips_plan.check_passed(validated(**{**reasons, "passed": True}), report) is True

"""kai0's flags in our words: what each means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from labelled import column, label, publish_dataset, publish_values
from structlog.testing import capture_logs

from robolift.errors import UsageError
from robolift.labeling.kai0_flags import FLAGS, PRESETS, parse_flags, translate
from robolift.stages.stage import parse_config

WRAPPER = "--threshold 30 --chunk-size 50 --discretion-type binary --advantage-source absolute_advantage --stage-nums 2"


def test_the_flags_of_kai0s_wrapper() -> None:
    translation = translate({"kai0": WRAPPER})
    assert translation.config == {
        **PRESETS["stage_advantage"],
        "preset": "stage_advantage",
        "positive_fraction": 0.3,
        "lookahead": 50,
        "scheme": "binary",
        "source": "absolute_advantage",
        "num_task_stages": 2,
        "group_by": "task_stage",
    }
    assert translation.notes == (
        "threshold 30 -> positive_fraction 0.3",
        "chunk_size 50 -> lookahead 50",
        "discretion_type binary -> scheme binary",
        "advantage_source absolute_advantage -> source absolute_advantage",
        "stage_nums 2 -> num_task_stages 2, group_by task_stage",
    )


@pytest.mark.parametrize(
    ("flag", "fields"),
    [
        ({"threshold": 30}, {"positive_fraction": 0.3}),
        ({"threshold": 70.0}, {"positive_fraction": 0.7}),
        ({"threshold": 29}, {"positive_fraction": 0.29}),
        ({"chunk_size": 25}, {"lookahead": 25}),
        ({"chunk-size": "25"}, {"lookahead": 25}),
        ({"discretion_type": "n_slices", "n_slices": 4}, {"scheme": "slices", "num_slices": 4}),
        ({"advantage_source": "relative_advantage"}, {"source": "relative_advantage"}),
        ({"advantage_source": "progress"}, {"source": "progress", "column": "progress"}),
        (
            {"advantage_source": "progress", "column": "progress_gt"},
            {"source": "progress", "column": "progress_gt"},
        ),
        ({"stage_nums": 1}, {"num_task_stages": 1, "group_by": "task"}),
        ({"stage_nums": 3}, {"num_task_stages": 3, "group_by": "task_stage"}),
        # What kai0's name says and what ours says agree.
        ({"threshold": 30, "positive_fraction": 0.3}, {"positive_fraction": 0.3}),
        # A field of ours wins over the preset.
        ({"threshold": 30, "intervention": "score"}, {"intervention": "score"}),
    ],
)
@pytest.mark.parametrize("preset", ["stage_advantage", "kai0_legacy"])
def test_a_flag_as_a_field(flag: dict[str, Any], fields: dict[str, Any], preset: str) -> None:
    config = parse_config("label_advantage", {"preset": preset, **flag}).model_dump(mode="json")
    assert {key: config[key] for key in fields} == fields
    assert config["preset"] == preset


def test_presets_are_starting_points() -> None:
    expected = {
        "recap": ("nstep", "rollout_autonomous", "positive", "positive", "at_least", "scale"),
        "stage_advantage": ("absolute_advantage", "all", "score", "positive", "exact", "scale"),
        "kai0_legacy": ("absolute_advantage", "all", "score", "score", "kai0_legacy", "kai0_legacy"),
    }
    names = ("source", "population", "demo", "intervention", "tie", "short_tail")
    for preset, wanted in expected.items():
        config = parse_config("label_advantage", {"preset": preset}).model_dump(mode="json")
        assert tuple(config[name] for name in names) == wanted
        # Written out in full it says the same.
        assert parse_config("label_advantage", config).model_dump(mode="json") == config
    assert parse_config("label_advantage", {}) == parse_config("label_advantage", {"preset": "recap"})


def test_a_person_is_told_what_the_flags_mean(output_root: str) -> None:
    dataset = publish_dataset(output_root, [10])
    values = publish_values(output_root, dataset, range(1, 11))
    with capture_logs() as logs:
        labels = label(output_root, dataset, values=values, kai0="--threshold 20", source="column", column="value")
    assert "kai0: threshold 20 -> positive_fraction 0.2" in [entry["event"] for entry in logs]
    assert column(labels, "advantage_label") == ["negative"] * 8 + ["positive"] * 2
    assert labels.config["positive_fraction"] == 0.2
    assert not set(labels.config) & set(FLAGS)
    # One more spelling of the same, and so the same output.
    again = label(
        output_root, dataset, values=values, preset="stage_advantage", threshold=20, source="column", column="value"
    )
    assert again.uri == labels.uri


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 30}, "threshold: kai0's names need preset: stage_advantage"),
        ({"preset": "recap", "kai0": "--threshold 30"}, "kai0's names need preset"),
        ({"kai0": "--threshold 30", "positive_fraction": 0.4}, "threshold 30 means positive_fraction 0.3, and"),
        (
            {"kai0": "--stage-nums 2", "group_by": "task"},
            "stage_nums 2 means group_by task_stage, and group_by is task",
        ),
        ({"kai0": "--chunk-size 50", "lookahead": 20}, "chunk_size 50 means lookahead 50, and lookahead is 20"),
        ({"kai0": "--advantage-source progress", "source": "column"}, "means source progress, and source is column"),
        ({"kai0": "--threshold 30", "threshold": 40}, "threshold is 30 in kai0 and 40 beside it"),
        ({"kai0": "--threshold 0.3"}, "threshold is 0.3, expected the percentage"),
        ({"kai0": "--threshold 100"}, "threshold is 100, expected the percentage"),
        ({"kai0": "--threshold high"}, "threshold is 'high', expected a number"),
        ({"kai0": "--threshold"}, "--threshold has no value"),
        ({"kai0": "--n-slices 2.5"}, "n_slices is '2.5', expected a whole number"),
        ({"kai0": "--discretion-type ternary"}, "expected binary, n_slices"),
        ({"kai0": "--advantage-source value"}, "expected absolute_advantage, relative_advantage, progress"),
        ({"kai0": "data/base --threshold 30"}, "'data/base' is no flag; the dataset is the input `dataset`"),
        ({"kai0": "--dry-run"}, "--dry-run belongs to the command itself"),
        ({"kai0": "--top 30"}, "no flag --top; there are: --threshold, --chunk-size"),
        ({"kai0": ["--threshold", 30]}, "expected kai0's flags in one line"),
        ({"preset": "kai0"}, "Input should be 'recap', 'stage_advantage' or 'kai0_legacy'"),
        ({"kai0": "--stage-nums 0"}, "num_task_stages: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config("label_advantage", config)
    assert message in str(caught.value)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_flag_that_is_no_number_is_the_user_s_to_mend(value: float) -> None:
    with pytest.raises(UsageError, match=r"kai0's chunk_size is (inf|nan), expected a number"):
        translate({"preset": "kai0_legacy", "chunk_size": value})


def test_keys_that_are_no_text_are_left_to_the_type_of_the_configuration() -> None:
    assert 30 in translate({30: 1}).config


def test_a_decimal_share_is_the_one_that_was_meant() -> None:
    given = {"preset": "stage_advantage", "threshold": 33.3, "positive_fraction": 0.333}
    assert translate(given).config["positive_fraction"] == 0.333


def test_flags_may_be_joined_with_their_values() -> None:
    assert parse_flags("--threshold=30 --stage-nums 2") == {"threshold": "30", "stage_nums": "2"}
    assert parse_flags("") == {}

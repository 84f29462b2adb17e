from __future__ import annotations

import pytest
from labelled import publish, publish_dataset

from robolift.annotators.review.lanes import Lanes
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.schema import Kind

KEYS = {"episode_index": [0, 0, 1, 1, 1], "frame_index": [0, 1, 0, 1, 2]}
MODES = ["autonomous", "correcting", "paused", "correcting", "autonomous"]
REWARDS = {
    **KEYS,
    "progress": [0.25, None, 0.0, 0.5, 1.0],
    **{name: [None] * 5 for name in ("success_prob", "tri", "reward", "stage", "confidence")},
    "anchor": [True] * 5,
    "source": ["vlm"] * 5,
}
VALUES = {**KEYS, "value": [-1.0, -0.5, -0.75, -0.25, 0.0], "value_std": [0.0] * 5, "relative_advantage": [None] * 5}
LABELS = {
    **KEYS,
    "advantage": [0.0] * 5,
    "valid": [True] * 5,
    "advantage_label": ["positive", "negative", "none", "positive", "none"],
    "slice": [None] * 5,
    "reason": ["threshold"] * 5,
    "group": ["all"] * 5,
    "weight": [1.0] * 5,
    "prompt_index": [0] * 5,
}


@pytest.fixture
def dataset(output_root):
    return publish_dataset(output_root, [2, 3], control_mode=MODES)


def output(root, dataset, kind, name, table):
    return publish(root, f"make_{name}", kind, tables={name: table}, inputs={"dataset": [dataset]}).uri


def test_what_models_say_is_shown_by_episode(dataset, output_root):
    lanes = Lanes(
        Dataset.open(dataset),
        dataset,
        rewards_uri=output(output_root, dataset, Kind.REWARDS, "rewards", REWARDS),
        values_uri=output(output_root, dataset, Kind.VALUES, "values", VALUES),
        advantage_uri=output(output_root, dataset, Kind.LABELS, "labels", LABELS),
    )
    assert lanes.of(0, hidden=False) == {
        "vlm_progress": [0.25, None],
        "value": [-1.0, -0.5],
        "advantage_label": [1, -1],
        "intervention": [0, 1],
        "blind": False,
    }
    assert lanes.of(1, hidden=True) == {
        "vlm_progress": None,
        "value": None,
        "advantage_label": None,
        "intervention": [0, 1, 0],
        "blind": True,
    }
    assert lanes.of(1, hidden=False)["advantage_label"] == [0, 1, 0]


def test_without_models_only_interventions_are_known(dataset):
    shown = Lanes(Dataset.open(dataset), dataset).of(0, hidden=False)
    assert shown == {
        "vlm_progress": None,
        "value": None,
        "advantage_label": None,
        "intervention": [0, 1],
        "blind": False,
    }


def test_which_lanes_there_are_is_known_beforehand(dataset, output_root):
    values = output(output_root, dataset, Kind.VALUES, "values", VALUES)
    lanes = Lanes(Dataset.open(dataset), dataset, values_uri=values)
    assert lanes.present == {"vlm_progress": False, "value": True, "advantage_label": False}


def test_an_output_of_another_dataset_is_refused(dataset, output_root):
    other = publish_dataset(output_root, [2, 3], outcome="failure", control_mode=MODES)
    values = output(output_root, other, Kind.VALUES, "values", VALUES)
    with pytest.raises(DataError, match="values are of another dataset"):
        Lanes(Dataset.open(dataset), dataset, values_uri=values)
    short = {name: column[:4] for name, column in VALUES.items()}
    with pytest.raises(DataError, match="its 4 frames are not the dataset's 5 frames"):
        Lanes(Dataset.open(dataset), dataset, values_uri=output(output_root, dataset, Kind.VALUES, "values", short))


def test_an_output_of_another_kind_is_refused(dataset, output_root):
    values = output(output_root, dataset, Kind.VALUES, "values", VALUES)
    with pytest.raises(UsageError, match="input rewards is a ValueSet"):
        Lanes(Dataset.open(dataset), dataset, rewards_uri=values)

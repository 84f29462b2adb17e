"""The stage that measures states and actions: exact, in any order, from tables alone, in openpi's layout."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import synthetic
from small_recordings import SMALL, imported, measured, write

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.policy.norm_stats import NormStats
from robolift.stages.stage import execute

BOTH = [synthetic.STATE, synthetic.ENVIRONMENT_STATE]
# Literal: openpi's deserialize_json reads {"norm_stats": {name: {mean, std, q01, q99}}}, each a list of numbers.
GOLDEN = """\
{
 "norm_stats": {
  "actions": {
   "mean": [
    2.0
   ],
   "q01": [
    0.04
   ],
   "q99": [
    3.96
   ],
   "std": [
    1.4142135623730951
   ]
  },
  "state": {
   "mean": [
    -0.4,
    7.0
   ],
   "q01": [
    -2.92,
    7.0
   ],
   "q99": [
    1.0,
    7.0
   ],
   "std": [
    1.4966629547095767,
    0.0
   ]
  }
 }
}
"""


def content(found: Manifest) -> bytes:
    return storage.read_bytes(found.file("norm_stats.json"))


def test_the_file_is_openpi_s_to_the_byte(tmp_path):
    found = measured(imported(write(tmp_path / "data", SMALL), tmp_path), tmp_path)
    assert content(found).decode() == GOLDEN
    assert (found.kind, found.counts) == ("NormStats", {"episodes": 2, "frames": 5})
    assert storage.read_json(found.file("columns.json")) == {
        "state": [{"name": "observation.state", "dim": 2, "names": ["height", "grip"]}],
        "actions": [{"name": "action", "dim": 1, "names": None}],
    }


def test_what_a_person_should_look_at_is_in_the_metrics(tmp_path):
    found = measured(imported(write(tmp_path / "data", SMALL), tmp_path), tmp_path).metrics()
    assert found["paused_frames_left_out"] == 0
    state = found["state"]
    assert (state["dimensions"], state["minimum"], state["maximum"]) == (2, [-3, 7], [1, 7])
    assert state["unscaled"] == {"mean_std": [1], "quantile": [1]}
    # (-3 - -0.96) / 1.96: the quantiles -2.92 and 1 are mapped to -1 and 1.
    assert state["farthest"] == pytest.approx([2.04 / 1.96, 0])
    assert found["actions"]["unscaled"] == {"mean_std": [], "quantile": []}


def test_a_glitch_and_a_dimension_that_hardly_moves_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    state = np.stack([rng.normal(size=1000), np.zeros(1000)], axis=1)
    state[500] = [600, 1]  # one wild angle, one blink of the gripper
    found = measured(imported(write(tmp_path / "data", [(state, rng.normal(size=1000))]), tmp_path), tmp_path)
    metrics = found.metrics()["state"]
    assert metrics["unscaled"] == {"mean_std": [], "quantile": [1]}
    assert metrics["farthest"][0] > 200
    assert metrics["farthest"][1] == 1  # shifted, not scaled
    assert found.metrics()["actions"]["farthest"][0] < 3


def test_it_is_what_numpy_gives_on_every_frame_that_is_not_paused(dataset, tmp_path):
    found = NormStats.from_dict(json.loads(content(measured(dataset, tmp_path, state_keys=BOTH))))
    opened = Dataset.open(dataset)
    live = opened.column("control_mode") != "paused"
    assert (~live).sum() == 2
    state = np.concatenate([opened.column(key) for key in BOTH], axis=1)[live].astype(np.float64)
    for stats, rows in ((found.state, state), (found.actions, opened.column("action")[live].astype(np.float64))):
        assert np.array_equal([stats.q01, stats.q99], np.quantile(rows, [0.01, 0.99], axis=0))
        assert stats.mean == pytest.approx(rows.mean(0), abs=1e-14)
        assert stats.std == pytest.approx(rows.std(0), abs=1e-14)
    every = measured(dataset, tmp_path, state_keys=BOTH, paused="include")
    assert every.counts["frames"] == opened.num_frames
    assert content(every) != content(measured(dataset, tmp_path, state_keys=BOTH))


@pytest.fixture(scope="module")
def episodes():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 30, 12)
    return [(rng.normal(size=(n, 2)) * 10.0 ** rng.integers(-4, 5), rng.normal(size=n)) for n in lengths]


def test_order_files_and_versions_do_not_change_a_byte(episodes, tmp_path):
    made = {
        f"{name} {version}": content(
            measured(imported(write(tmp_path / name / version, chosen, version=version), tmp_path), tmp_path)
        )
        for name, chosen in (("forth", episodes), ("back", episodes[::-1]))
        for version in ("v2.1", "v3.0")
    }
    assert len(set(made.values())) == 1
    half = imported(write(tmp_path / "half", episodes[:5]), tmp_path)
    rest = {"dataset_uri": str(write(tmp_path / "rest", episodes[5:]))}
    both = execute("import_dataset", rest, {"previous": half.uri}, str(tmp_path))
    assert content(measured(both, tmp_path)) in made.values()


def test_the_same_dataset_gives_the_same_files_in_another_root(dataset, tmp_path):
    first, again = (measured(dataset, tmp_path / name) for name in ("one", "two"))
    assert first.uri != again.uri
    assert (first.digest, first.files) == (again.digest, again.files)


def test_no_video_is_opened(tmp_path):
    path = write(tmp_path / "data", SMALL, camera="observation.images.top")
    given = imported(path, tmp_path)
    shutil.rmtree(path / "videos")
    assert content(measured(given, tmp_path)).decode() == GOLDEN


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_number_that_is_none_is_named_with_its_place(value, tmp_path):
    episodes = [SMALL[0], ([[1, 7], [1, value]], [0, 4])]
    path = write(tmp_path / "data", episodes)
    given = execute("import_dataset", {"dataset_uri": str(path), "allow_nan": ["observation.state"]}, {}, str(tmp_path))
    with pytest.raises(DataError, match=rf"column observation\.state is {value}") as refused:
        measured(given, tmp_path)
    assert refused.value.where == "episode 1, frame 1, dimension 1"
    assert not list(tmp_path.rglob("norm_stats.json"))


def test_frames_that_are_not_measured_may_hold_anything(tmp_path):
    episodes = [*SMALL, ([[np.nan, 0], [-2, 7]], [100, 2])]
    path = write(tmp_path / "data", episodes, control={2: ["paused", "autonomous"]})
    given = execute("import_dataset", {"dataset_uri": str(path), "allow_nan": ["observation.state"]}, {}, str(tmp_path))
    found = measured(given, tmp_path)
    assert found.counts == {"episodes": 3, "frames": 6}
    assert found.metrics()["paused_frames_left_out"] == 1
    assert found.metrics()["actions"]["maximum"] == [4]


def test_a_dataset_of_pauses_is_refused(tmp_path):
    paused = {0: ["paused"] * 3, 1: ["paused"] * 2}
    given = imported(write(tmp_path / "data", SMALL, control=paused), tmp_path)
    with pytest.raises(DataError, match="every frame is paused") as refused:
        measured(given, tmp_path)
    assert "paused: include" in refused.value.mend
    assert content(measured(given, tmp_path, paused="include")).decode() == GOLDEN


def test_columns_that_can_not_be_measured_are_refused(dataset, tmp_path):
    for key, said in (
        ("observation.force", "no column observation.force in the dataset"),
        ("control_mode", "column control_mode holds string"),
        (synthetic.TOPVIEW, f"column {synthetic.TOPVIEW} holds video"),
    ):
        with pytest.raises(DataError, match=said):
            measured(dataset, tmp_path, state_keys=[key])


def test_a_policy_that_reads_no_state_needs_the_action_alone(dataset, tmp_path):
    found = measured(dataset, tmp_path, state_keys=[])
    document = json.loads(content(found))["norm_stats"]
    assert document["state"] == {"mean": [], "q01": [], "q99": [], "std": []}
    assert len(document["actions"]["mean"]) == 4
    assert found.metrics()["state"]["dimensions"] == 0

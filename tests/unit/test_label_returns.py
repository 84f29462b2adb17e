from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import make_targets, publish_dataset

from robolift import storage
from robolift.__main__ import main
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute
from robolift.table_files import episode_blocks


def targets_of(made: Manifest, name: str = "value_target") -> list[float]:
    return list(made.table("targets").column(name).to_pylist())


def test_targets_and_rewards_of_demo_success_and_failure(output_root: str) -> None:
    dataset = publish_dataset(
        output_root, [2, 4, 3], kind=["demo", "rollout", "rollout"], outcome=["unknown", "success", "failure"]
    )
    made = make_targets(output_root, dataset)
    assert [8 * y for y in targets_of(made)] == [-1, 0, -3, -2, -1, 0, -6, -5, -4]
    assert [8 * r for r in targets_of(made, "reward")] == [-1, 0, -1, -1, -1, 0, -1, -1, -4]
    table = made.table("targets")
    assert table.select(["episode_index", "frame_index"]).equals(
        dataset.table("frames").select(["episode_index", "frame_index"])
    )
    assert made.counts == {"episodes": 3, "frames": 9}


def test_metrics_tell_each_outcome(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2, 4, 3], task=["a", "b", "b"], outcome=["success", "success", "failure"])
    metrics = make_targets(output_root, dataset).metrics()
    assert metrics["longest_episode"] == {"a": 2, "b": 4}
    assert metrics["outcomes"] == {
        "success": {
            "episodes": 2,
            "frames": 6,
            "first_target": {"min": -3 / 8, "mean": -5 / 16, "max": -1 / 4},
            "value_target": {"min": -3 / 8, "max": 0.0},
            "reward": {"min": -1 / 4, "max": 0.0},
        },
        "failure": {
            "episodes": 1,
            "frames": 3,
            "first_target": {"min": -6 / 8, "mean": -6 / 8, "max": -6 / 8},
            "value_target": {"min": -6 / 8, "max": -4 / 8},
            "reward": {"min": -4 / 8, "max": -1 / 8},
        },
    }


def test_an_outcome_nobody_had_is_told_as_none(output_root: str) -> None:
    metrics = make_targets(output_root, publish_dataset(output_root, [2])).metrics()
    assert metrics["outcomes"]["failure"] == {"episodes": 0, "frames": 0}


def test_pistars_targets(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4, 2], outcome=["success", "failure"])
    made = make_targets(output_root, dataset, target="per_episode")
    assert targets_of(made) == [-0.75, -0.5, -0.25, 0, -1, -1]
    assert targets_of(made, "reward") == [-0.25, -0.25, -0.25, 0, 0, -1]


def test_failure_cost(output_root: str) -> None:
    dataset = publish_dataset(output_root, [1, 2], outcome=["failure", "success"])
    assert targets_of(make_targets(output_root, dataset, failure_cost=3.0)) == [-6 / 8, -1 / 8, 0]


def test_a_recorded_dataset(dataset: Manifest, output_root: str) -> None:
    made = make_targets(output_root, dataset)
    target, reward = (np.array(targets_of(made, name)) for name in ("value_target", "reward"))
    episodes = dataset.table("episodes")
    ends = np.cumsum(episodes.column("length").to_numpy())
    for end, length, outcome in zip(
        ends.tolist(), episodes.column("length").to_pylist(), episodes.column("outcome").to_pylist(), strict=True
    ):
        assert reward[end - length : end].sum() == target[end - length]
        assert target[end - 1] == (0 if outcome == "success" else -0.5)


def test_a_rollout_of_unknown_outcome_is_refused(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = ["unknown", "success", *["unknown"] * 13]
    dataset = publish_dataset(output_root, [2] * 15, kind=["demo"] + ["rollout"] * 14, outcome=outcome)
    with pytest.raises(DataError, match="13 rollouts have no known outcome") as caught:
        make_targets(output_root, dataset)
    assert "episodes 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..." in str(caught.value)
    code = main(["label_returns", "--set", f"output_root={output_root}", "--set", f"inputs.dataset={dataset.uri}"])
    assert code == 65
    assert "expected: success or failure for each rollout" in capsys.readouterr().err
    assert not list(Path(output_root, "label_returns").glob("*/manifest.json"))


@pytest.mark.parametrize(
    "config", [{"failure_cost": -0.1}, {"failure_cost": -1}, {"target": "per_task"}, {"penalty": 1}]
)
def test_wrong_configuration_is_a_usage_error(config: dict[str, object], output_root: str) -> None:
    dataset = publish_dataset(output_root, [2])
    with pytest.raises(UsageError, match=rf"label_returns.{next(iter(config))}"):
        make_targets(output_root, dataset, **config)


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        root = str(tmp_path / name)
        dataset = publish_dataset(root, [5, 7, 3], outcome=["success", "failure", "success"])
        made.append(make_targets(root, dataset))
    assert made[0].files == made[1].files
    assert made[0].digest == made[1].digest


def test_object_store(output_root: str) -> None:
    dataset = publish_dataset(output_root, [3, 2])
    remote = execute("label_returns", {}, {"dataset": dataset.uri}, "memory://labels-of-returns")
    assert remote.uri.startswith("memory://")
    assert targets_of(remote) == targets_of(make_targets(output_root, dataset))


def test_blocks_of_episodes_leave_no_trace(output_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets, rewards and metrics are those of all episodes at once, whatever the block."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 60)
    outcome = np.where(rng.random(60) < 0.4, "failure", "success").tolist()
    dataset = publish_dataset(output_root, lengths.tolist(), outcome=outcome, task=list("abc") * 20)
    made = [make_targets(f"{output_root}/whole", dataset)]
    for frames in (1, 50):
        monkeypatch.setattr(
            "robolift.stages.label_returns.episode_blocks", lambda starts, most=frames: episode_blocks(starts, most)
        )
        made.append(make_targets(f"{output_root}/{frames}", dataset))
    for name in ("targets.parquet", "metrics.json"):
        assert len({storage.read_bytes(one.file(name)) for one in made}) == 1

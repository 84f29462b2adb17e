"""People over the model, field by field, and the reward that follows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from labelled import publish_dataset
from reward_shards import column, publish_rewards

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.stages.stage import execute
from robolift.table_files import episode_blocks

NULL = [None] * 3


@pytest.fixture
def dataset(output_root: str) -> Manifest:
    """Four episodes of three frames: the model and people, the model, the recorded outcome, nobody."""
    return publish_dataset(output_root, [3] * 4, outcome=["success", "success", "failure", "unknown"])


@pytest.fixture
def automatic(output_root: str, dataset: Manifest) -> Manifest:
    return publish_rewards(
        output_root,
        dataset,
        progress=[0.0, 0.25, 1.0, 0.5, 0.5, 0.25, *NULL, *NULL],
        success_prob=[0.75] * 3 + [0.25] * 3 + [None] * 6,
        confidence=[0.5] * 6 + [None] * 6,
        anchor=[True, False, True] * 2 + [False] * 6,
        source=["vlm"] * 6 + ["none"] * 6,
    )


@pytest.fixture
def reviews(output_root: str, dataset: Manifest) -> Manifest:
    return publish_rewards(
        output_root,
        dataset,
        "import_reviews",
        progress=[0.0, 0.5, 0.5] + [None] * 9,
        success_prob=[0.0] * 3 + [None] * 9,
        tri=[1, 1, -1] + [None] * 9,
        stage=[0, 1, 1] + [None] * 9,
        reward=[0, 0, 1] + [None] * 9,
        confidence=[1.0] * 3 + [None] * 9,
        anchor=[False, True, False] + [False] * 9,
        source=["human"] * 3 + ["none"] * 9,
    )


def merge(
    root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest, quality: Manifest | None = None, **config: Any
) -> Manifest:
    given = {"dataset": dataset, "automatic": automatic, "reviews": reviews, "quality": quality}
    return execute("merge_rewards", config, {name: made.uri for name, made in given.items() if made}, root)


def test_people_over_the_model_field_by_field(
    output_root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest
) -> None:
    made = merge(output_root, dataset, automatic, reviews)
    assert column(made, "progress") == [0.0, 0.5, 0.5, 0.5, 0.5, 0.25, *NULL, *NULL]
    # Recorded are successes of episodes 0 and 1: people know better of the one, the model does not of the other.
    assert column(made, "success_prob") == [0.0] * 3 + [1.0] * 3 + [0.0] * 3 + NULL
    assert column(made, "tri") == [1, 1, -1] + [None] * 9
    assert column(made, "stage") == [0, 1, 1] + [None] * 9
    assert column(made, "confidence") == [1.0] * 3 + [0.5] * 3 + [None] * 6
    assert column(made, "anchor") == [False, True, False] + [True, False, True] + [False] * 6
    assert column(made, "source") == ["human"] * 3 + ["vlm"] * 3 + ["heuristic"] * 3 + ["none"] * 3
    assert column(made, "reward") == [0.5, 0.0, 0.0, 0.0, -0.25, 0.0, *NULL, *NULL]
    assert made.counts == {
        "episodes": 4,
        "frames": 12,
        "rows_vlm": 3,
        "rows_human": 3,
        "rows_heuristic": 3,
        "rows_none": 3,
    }


def test_who_said_only_how_it_ended_is_not_sure_of_its_progress(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2] * 3, outcome="unknown")
    asked = {"anchor": [True, False] * 2 + [False] * 2, "source": ["vlm"] * 4 + ["none"] * 2}
    automatic = publish_rewards(
        output_root, dataset, progress=[0.25] * 4 + [None] * 2, confidence=[0.5] * 4 + [None] * 2, **asked
    )
    # Of the first and the last episode people said the outcome alone; of the second that it stalls, too.
    said = {"success_prob": [1.0] * 6, "tri": [None] * 2 + [0] * 2 + [None] * 2, "confidence": [1.0] * 6}
    reviews = publish_rewards(
        output_root, dataset, "import_reviews", **said, anchor=[False, True] * 3, source=["human"] * 6
    )
    made = merge(output_root, dataset, automatic, reviews)
    assert column(made, "source") == ["human"] * 6
    assert column(made, "confidence") == [0.5, 0.5, 1.0, 1.0, None, None]
    assert column(made, "anchor") == [True, False, False, True, False, False]


def test_confidence_in_people_s_own_rewards_is_theirs(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2])
    both = {"confidence": [0.5] * 2, "source": ["vlm"] * 2}
    automatic = publish_rewards(output_root, dataset, progress=[0.25] * 2, **both)
    marked = {"reward": [0, None], "confidence": [1.0, None], "source": ["human", "none"]}
    reviews = publish_rewards(output_root, dataset, "import_reviews", **marked)
    made = merge(output_root, dataset, automatic, reviews, reward="human")
    assert column(made, "confidence") == [1.0, 0.5]
    assert column(merge(output_root, dataset, automatic, reviews), "confidence") == [0.5, 0.5]


def test_what_changed_against_the_model(
    output_root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest
) -> None:
    metrics = merge(output_root, dataset, automatic, reviews).metrics()
    assert metrics["rows"] == {
        "progress": {"human": 3, "vlm": 3, "heuristic": 0, "none": 6},
        "success_prob": {"human": 3, "vlm": 0, "heuristic": 6, "none": 3},
        "tri": {"human": 3},
        "stage": {"human": 3},
    }
    assert metrics["against_model"] == {
        "progress": {"changed": 2, "added": 0},
        "success_prob": {"changed": 6, "added": 3},
    }
    assert metrics["contradictions"] == {
        "human_recorded": {"episodes": 1, "opposite": 1},
        "human_vlm": {"episodes": 1, "opposite": 1},
        "recorded_vlm": {"episodes": 2, "opposite": 1},
    }
    assert metrics["reward"] == {"known_share": 0.5, "nonzero_share": 2 / 6, "min": -0.25, "mean": 0.25 / 6, "max": 0.5}
    lenient = merge(output_root, dataset, automatic, reviews, success_threshold=0.9).metrics()
    assert lenient["against_model"]["success_prob"]["changed"] == 3
    assert lenient["contradictions"]["human_vlm"] == {"episodes": 1, "opposite": 0}


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("level", [0.0, 0.5, 0.5, 0.5, 0.5, 0.25, *NULL, *NULL]),
        ("sparse_success", [0.0] * 5 + [1.0] + [0.0] * 3 + NULL),
        ("tri", [1.0, 1.0, -1.0] + [None] * 9),
        ("human", [0.0, 0.0, 1.0] + [None] * 9),
    ],
)
def test_the_reward_asked_for(
    reward: str, expected: list, output_root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest
) -> None:
    assert column(merge(output_root, dataset, automatic, reviews, reward=reward), "reward") == expected


def test_a_recorded_success_pays_where_nobody_else_spoke(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2, 2], outcome=["success", "failure"])
    nothing = publish_rewards(output_root, dataset)
    made = merge(output_root, dataset, nothing, nothing, reward="sparse_success")
    assert column(made, "reward") == [0.0, 1.0, 0.0, 0.0]
    assert column(made, "source") == ["heuristic"] * 4
    without = merge(output_root, dataset, nothing, nothing, reward="sparse_success", use_outcome=False)
    assert column(without, "reward") == column(without, "success_prob") == [None] * 4
    assert column(without, "source") == ["none"] * 4
    assert without.metrics()["reward"] == {"known_share": 0.0}


def test_a_recorded_success_that_the_model_doubts_is_paid(output_root: str) -> None:
    dataset = publish_dataset(output_root, [2, 2], outcome=["success", "unknown"])
    automatic = publish_rewards(output_root, dataset, success_prob=[0.45] * 2 + [0.55] * 2, source=["vlm"] * 4)
    nothing = publish_rewards(output_root, dataset, "import_reviews")
    made = merge(output_root, dataset, automatic, nothing, reward="sparse_success")
    assert column(made, "reward") == [0.0, 1.0, 0.0, 1.0]
    assert column(made, "source") == ["vlm"] * 4
    doubted = merge(output_root, dataset, automatic, nothing, reward="sparse_success", use_outcome=False)
    assert column(doubted, "reward") == [0.0, 0.0, 0.0, 1.0]
    assert doubted.metrics()["contradictions"]["recorded_vlm"] == {"episodes": 1, "opposite": 1}


def test_labels_that_did_not_pass_are_refused(
    output_root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest
) -> None:
    inputs = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri}
    # People say that episode 0 failed; the model gives it more than the success it knows.
    strict = {"min_coverage": 0.9, "min_success_auroc": 0.75}
    quality = execute("label_quality", strict, inputs, output_root)
    with pytest.raises(
        DataError, match=r"coverage_progress is 0.5, asked is 0.9; success_auroc is 0, asked is 0.75\n"
    ) as caught:
        merge(output_root, dataset, automatic, reviews, quality)
    assert str(caught.value).startswith("the labels did not pass label_quality: coverage")
    assert "quality_gate: false" in caught.value.mend
    anyway = merge(output_root, dataset, automatic, reviews, quality, quality_gate=False)
    assert anyway.counts["rows_human"] == 3
    passed = execute("label_quality", {}, inputs, output_root)
    assert merge(output_root, dataset, automatic, reviews, passed).table("rewards").equals(anyway.table("rewards"))


def test_the_quality_of_other_labels_is_refused(
    output_root: str, dataset: Manifest, automatic: Manifest, reviews: Manifest
) -> None:
    inputs = {"dataset": dataset.uri, "automatic": reviews.uri, "reviews": reviews.uri}
    quality = execute("label_quality", {}, inputs, output_root)
    with pytest.raises(DataError, match="the quality was measured on other automatic labels"):
        merge(output_root, dataset, automatic, reviews, quality, quality_gate=False)


def test_labels_of_another_dataset_are_refused(output_root: str, dataset: Manifest, automatic: Manifest) -> None:
    other = publish_dataset(output_root, [3] * 4, outcome="success")
    with pytest.raises(DataError, match="the reviews were made from another dataset"):
        merge(output_root, dataset, automatic, publish_rewards(output_root, other))


@pytest.mark.parametrize("reward", ["difference", "sparse_success", "human"])
def test_blocks_of_episodes_leave_no_trace(output_root: str, monkeypatch: pytest.MonkeyPatch, reward: str) -> None:
    """Rows and metrics are those of all episodes at once, whatever the block."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 40).tolist()
    dataset = publish_dataset(output_root, lengths, outcome=rng.choice(["success", "failure", "unknown"], 40).tolist())

    def some(values: Any) -> list[Any]:
        return [value if kept else None for value, kept in zip(values, rng.random(len(values)) < 0.6, strict=True)]

    num = sum(lengths)
    tables = [
        publish_rewards(
            output_root,
            dataset,
            stage,
            **{name: some(rng.random(num).tolist()) for name in ("progress", "success_prob", "confidence", "reward")},
            tri=some(rng.integers(-1, 2, num).tolist()),
            anchor=(rng.random(num) < 0.5).tolist(),
            source=[source] * num,
        )
        for stage, source in (("collect_rewards", "vlm"), ("import_reviews", "human"))
    ]
    made = [merge(f"{output_root}/whole", dataset, *tables, reward=reward)]
    for frames in (1, 100):
        monkeypatch.setattr(
            "robolift.stages.merge_rewards.episode_blocks", lambda starts, most=frames: episode_blocks(starts, most)
        )
        made.append(merge(f"{output_root}/{frames}", dataset, *tables, reward=reward))
    for name in ("rewards.parquet", "metrics.json"):
        assert len({storage.read_bytes(one.file(name)) for one in made}) == 1
    assert made[0].counts == made[1].counts


@pytest.mark.parametrize(
    ("num", "problem", "where"),
    [
        (10, "its 10 frames are not the dataset's 12 frames", "episode 3, frame 1"),
        (14, "its 14 frames are not the dataset's 12 frames", "episode 3, frame 3"),
    ],
)
def test_tables_of_other_frames_are_refused(
    output_root: str, dataset: Manifest, automatic: Manifest, num: int, problem: str, where: str
) -> None:
    of = publish_dataset(f"{output_root}/other", [3, 3, 3, num - 9])
    other = publish_rewards(output_root, of, "import_reviews", source=["none"] * num)
    manifest = json.loads(storage.read_bytes(other.file("manifest.json")))
    manifest["inputs"]["dataset"][0]["digest"] = dataset.digest
    storage.write_bytes(other.file("manifest.json"), storage.to_json_bytes(manifest))
    with pytest.raises(DataError, match=f"{problem}(.|\n)*first difference at {where}"):
        merge(output_root, dataset, automatic, other)

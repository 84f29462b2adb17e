"""Which chunks, prompts and weights each variant is taught."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import synthetic
from toy_policies import PROMPTS, recipe, two_modes

from robolift.data.dataset import Dataset
from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import PromptTable, advantage_prompts
from robolift.policy import data
from robolift.policy.data import Labels, bare_rows, frames_left, prepare, shuffle_labels
from robolift.schema import as_table
from robolift.stages.stage import execute

FORCED, DEMO, RANKED = "forced_intervention", "demo", "threshold"
TABLE = advantage_prompts((synthetic.TASK,))
FAILURES = (2, 6)


@pytest.fixture(scope="module")
def square(dataset):
    return Dataset.open(dataset)


def labels_of(opened, *, weight=None, prompt=None):
    num = opened.num_frames
    return Labels(
        prompt=np.arange(num) % 2 + 1 if prompt is None else prompt,
        weight=np.ones(num, np.float32) if weight is None else weight,
        reason=np.full(num, RANKED, object),
    )


def labels_table(opened, **changes):
    num = opened.num_frames
    columns = {
        **{key: opened.frames.column(key).to_numpy() for key in ("episode_index", "frame_index")},
        "advantage": np.zeros(num, np.float32),
        "valid": np.ones(num, bool),
        "advantage_label": ["positive"] * num,
        "slice": [None] * num,
        "reason": [RANKED] * num,
        "group": [""] * num,
        "weight": np.ones(num, np.float32),
        "prompt_index": np.full(num, 2),
    }
    return as_table("labels", {**columns, **changes})


def test_frames_left_until_the_episode_ends_or_pauses():
    starts = np.array([0, 4, 9])
    paused = np.zeros(9, bool)
    assert frames_left(starts, paused).tolist() == [4, 3, 2, 1, 5, 4, 3, 2, 1]
    paused[[1, 6, 7]] = True
    assert frames_left(starts, paused).tolist() == [1, 0, 2, 1, 2, 1, 0, 0, 1]
    assert frames_left(np.array([0]), np.zeros(0, bool)).tolist() == []


def test_chunks_are_masked_at_breaks_and_repeat_the_last_action():
    paused = np.array([False, False, False, True, False, False])
    chunks = data.ChunkData(
        observation=np.arange(6, dtype=np.float32)[:, None],
        actions=np.arange(10, 16, dtype=np.float32)[:, None],
        left=frames_left(np.array([0, 5, 6]), paused),
        prompt=np.array([0, 1, 2, 0, 1, 2], np.int32),
        weight=np.array([1, 2, 3, 4, 5, 6], np.float32),
        bare=np.zeros(3, np.int32),
        rows=np.array([0, 1, 2, 4]),
        held_out_rows=np.array([5]),
        action_horizon=3,
    )
    batch = chunks.batch(np.array([0, 1, 2, 3]))
    assert batch.actions[..., 0].tolist() == [[10, 11, 12], [11, 12, 12], [12, 12, 12], [14, 14, 14]]
    assert batch.real.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert batch.observation.ravel().tolist() == [0, 1, 2, 4]
    assert batch.prompt.tolist() == [0, 1, 2, 1]
    assert batch.weight.tolist() == [1, 2, 3, 5]
    held_out = chunks.held_out()
    assert held_out.actions[..., 0].tolist() == [[15, 15, 15]]
    assert held_out.real.tolist() == [[1, 0, 0]]


def test_held_out_rows_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(data, "MAX_HELD_OUT", 4)
    chunks = two_modes(40)  # the last 16 rows are held out
    assert chunks.held_out().observation.tolist() == chunks.observation[[24, 29, 34, 39]].tolist()
    none = dataclasses.replace(chunks, held_out_rows=np.zeros(0, np.int64))
    assert none.held_out() is None


def test_shuffled_labels_keep_shares_and_forced_labels():
    rng = np.random.default_rng(0)
    task = np.repeat(["fold", "hang"], 200).astype(object)
    reason = rng.choice([RANKED, FORCED, DEMO], 400, p=[0.8, 0.1, 0.1]).astype(object)
    positive = rng.random(400) < np.where(task == "fold", 0.3, 0.6)
    prompt = np.where(task == "fold", 1, 4) + positive  # fold: rows 0-2, hang: 3-5
    prompt[reason != RANKED] = np.where(task == "fold", 2, 5)[reason != RANKED]
    labels = Labels(prompt=prompt, weight=np.ones(400), reason=reason)
    before = prompt.copy()
    shuffled = shuffle_labels(labels, task, seed=3)
    assert (labels.prompt == before).all()
    assert (shuffled[reason != RANKED] == prompt[reason != RANKED]).all()
    for name in ("fold", "hang"):
        rows = (task == name) & (reason == RANKED)
        assert sorted(shuffled[rows]) == sorted(prompt[rows])
        assert (shuffled[rows] != prompt[rows]).mean() > 0.2
    assert (shuffle_labels(labels, task, seed=3) == shuffled).all()
    assert (shuffle_labels(labels, task, seed=4) != shuffled).any()


def test_bare_rows_of_binary_and_sliced_tables():
    assert bare_rows(advantage_prompts(("fold", "hang")), ("fold", "hang")).tolist() == [0, 0, 0, 3, 3, 3]
    assert bare_rows(advantage_prompts(("fold",), 4), ("fold",)).tolist() == [0] * 5
    with pytest.raises(UsageError, match=r"prompt 'hang', which is of no task of the dataset"):
        bare_rows(advantage_prompts(("fold", "hang")), ("fold",))
    with pytest.raises(UsageError, match=r"unknown prompt 'hang'"):
        bare_rows(PROMPTS, ("fold", "hang"))


def test_filtered_trains_on_successes_and_nothing_on_pauses(square):
    plain, filtered = (
        prepare(square, recipe(variant=v, val_fraction=0), prompts=TABLE, labels=None, features=None).chunks
        for v in ("plain", "filtered")
    )
    episode = square.column("episode_index")
    paused = square.column("control_mode") == "paused"
    assert paused.sum() == 2
    assert plain.rows.tolist() == np.flatnonzero(~paused).tolist()
    assert filtered.rows.tolist() == np.flatnonzero(~paused & ~np.isin(episode, FAILURES)).tolist()
    assert set(filtered.prompt) == set(plain.prompt) == {0}
    assert (filtered.observation == plain.observation).all()  # one normalisation for all variants


def test_no_pause_is_inside_a_chunk(square):
    chunks = prepare(square, recipe(variant="plain"), prompts=TABLE, labels=None, features=None).chunks
    paused = np.flatnonzero(square.column("control_mode") == "paused")
    episode = square.column("episode_index")
    batch = chunks.batch(np.arange(chunks.num_rows))
    num_real = batch.real.sum(1).astype(int)
    for row, count in zip(chunks.rows, num_real, strict=True):
        span = np.arange(row, row + count)
        assert not np.isin(span, paused).any()
        assert (episode[span] == episode[row]).all()
        # The chunk is as long as it can be.
        assert count == 8 or row + count in (*paused, *square.starts)
    assert num_real.min() == 1


def test_every_variant_holds_out_and_measures_the_same_episodes(square):
    labels = labels_of(square, weight=np.linspace(0, 3, square.num_frames))
    variants = ("plain", "filtered", "advantage", "shuffled", "weighted")
    outcome = np.array(square.episodes.column("outcome").to_pylist())
    episode = square.column("episode_index")
    for seed in range(4):
        own = split_episodes(outcome, 0.5, seed)[1]
        for held_out, expected in ((None, own), (np.array([1, 2]), np.array([1, 2]))):
            made = {
                variant: prepare(
                    square,
                    recipe(variant=variant, val_fraction=0.5, seed=seed),
                    prompts=TABLE,
                    labels=labels,
                    features=None,
                    held_out=held_out,
                )
                for variant in variants
            }
            measured = {variant: found.chunks.held_out_rows.tolist() for variant, found in made.items()}
            assert all(rows == measured["plain"] for rows in measured.values())
            assert all(found.held_out.tolist() == expected.tolist() for found in made.values())
            assert np.unique(episode[measured["plain"]]).tolist() == expected.tolist()
            filtered = np.unique(episode[made["filtered"].chunks.rows])
            assert filtered.tolist() == np.setdiff1d(np.arange(8), [*expected, *FAILURES]).tolist()


def test_held_out_rows_are_no_training_rows(square):
    chunks = prepare(
        square, recipe(variant="plain", val_fraction=0.25), prompts=TABLE, labels=None, features=None
    ).chunks
    episode = square.column("episode_index")
    held_out = set(episode[chunks.held_out_rows])
    assert len(held_out) == 2
    assert not held_out & set(episode[chunks.rows])


def test_features_stand_behind_the_states_and_are_normalised(square):
    features = np.random.default_rng(0).normal(5, 3, (square.num_frames, 2)).astype(np.float32)
    made = prepare(
        square,
        recipe(variant="plain", state_keys=["observation.state", "observation.environment_state"]),
        prompts=TABLE,
        labels=None,
        features=features,
    )
    assert made.state_dims == (8, 17)
    assert made.chunks.observation.shape == (square.num_frames, 27)
    live = square.column("control_mode") != "paused"
    assert made.chunks.observation[live, 25:].mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert made.chunks.observation[live, 25:].std(0) == pytest.approx([1, 1], abs=1e-5)
    assert made.observation.offset[25:] == pytest.approx(features[live].mean(0), abs=1e-5)
    assert made.action.invert(made.chunks.actions) == pytest.approx(square.column("action"), abs=1e-5)


def test_prompts_of_each_labelled_variant(square):
    labels = labels_of(square, weight=np.linspace(0, 3, square.num_frames))

    def taught(variant):
        return prepare(square, recipe(variant=variant), prompts=TABLE, labels=labels, features=None).chunks

    advantage, shuffled, weighted = taught("advantage"), taught("shuffled"), taught("weighted")
    assert (advantage.prompt == labels.prompt).all()
    assert np.bincount(shuffled.prompt).tolist() == np.bincount(labels.prompt).tolist()
    assert (shuffled.prompt != labels.prompt).any()
    assert set(weighted.prompt) == {0}
    assert weighted.weight[weighted.rows].mean() == pytest.approx(1)
    assert np.allclose(np.diff(weighted.weight), weighted.weight[1], rtol=1e-3)  # still a line through 0
    assert set(advantage.weight) == {1.0}


def test_variants_refuse_what_they_can_not_use(square):
    with pytest.raises(UsageError, match="variant advantage needs input labels"):
        prepare(square, recipe(), prompts=TABLE, labels=None, features=None)
    with pytest.raises(DataError, match=r"every weight is 1\.0, so variant weighted would be variant plain"):
        prepare(square, recipe(variant="weighted"), prompts=TABLE, labels=labels_of(square), features=None)
    outcome = np.array(square.episodes.column("outcome").to_pylist())
    held_out = np.isin(square.column("episode_index"), split_episodes(outcome, 0.5, 0)[1])
    with pytest.raises(DataError, match="no frame to train on has a weight above 0"):
        prepare(
            square,
            recipe(variant="weighted", val_fraction=0.5),
            prompts=TABLE,
            labels=labels_of(square, weight=held_out.astype(np.float32)),
            features=None,
        )


def test_labels_of_other_frames_prompts_or_weights_are_refused(square):
    aligned = Labels.align(labels_table(square), square, TABLE, where="here")
    assert set(aligned.prompt) == {2}
    assert set(aligned.reason) == {RANKED}
    with pytest.raises(DataError, match=rf"are not the dataset's {square.num_frames} frames"):
        Labels.align(labels_table(square).slice(1), square, TABLE, where="here")
    prompt = np.full(square.num_frames, 2)
    prompt[5] = 3
    with pytest.raises(DataError, match="column prompt_index is 3 in row 5") as refused:
        Labels.align(labels_table(square, prompt_index=prompt), square, TABLE, where="here")
    assert "0 to 2, a row of prompts.json" in str(refused.value)
    weight = np.ones(square.num_frames, np.float32)
    weight[7] = -1
    with pytest.raises(DataError, match=r"column weight is -1\.0 in row 7"):
        Labels.align(labels_table(square, weight=weight), square, TABLE, where="here")


def test_prompts_of_another_dataset_are_refused(square):
    foreign = PromptTable((synthetic.TASK, f"{synthetic.TASK}, Advantage: negative", "fold"))
    with pytest.raises(UsageError, match="prompt 'fold', which is of no task"):
        prepare(square, recipe(variant="plain"), prompts=foreign, labels=None, features=None)


def test_a_state_that_is_not_finite_is_named_with_its_frame(square):
    class Spoilt(Dataset):
        def column(self, name, episodes=None):
            found = super().column(name, episodes)
            if name == "observation.state":
                found[self.starts[1] + 4, 2] = np.nan
            return found

    spoilt = Spoilt(square.uri, square.facts, square.episodes)
    with pytest.raises(DataError, match=r"column observation\.state is not finite") as refused:
        prepare(spoilt, recipe(variant="plain"), prompts=TABLE, labels=None, features=None)
    assert "episode 1, frame 4" in str(refused.value)


def test_no_success_leaves_nothing_to_filter(tmp_path):
    path = tmp_path / "recording"
    synthetic.write_recording(path, version="v2.1", cameras=(), episodes=3, frames=12, scripts=("failure",))
    opened = Dataset.open(execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path / "runs")))
    with pytest.raises(DataError, match="no successful episode"):
        prepare(opened, recipe(variant="filtered"), prompts=TABLE, labels=None, features=None)


def test_no_success_may_be_left_by_what_is_held_out(square):
    successes = np.setdiff1d(np.arange(8), FAILURES)
    with pytest.raises(DataError, match="no successful episode is left to train on") as refused:
        prepare(square, recipe(variant="filtered"), prompts=TABLE, labels=None, features=None, held_out=successes)
    assert "6 are held out" in str(refused.value)


def test_a_dataset_of_pauses_is_refused(square):
    class Paused(Dataset):
        def column(self, name, episodes=None):
            found = super().column(name, episodes)
            return np.full_like(found, "paused") if name == "control_mode" else found

    paused = Paused(square.uri, square.facts, square.episodes)
    with pytest.raises(DataError, match="every frame is paused"):
        prepare(paused, recipe(variant="plain"), prompts=TABLE, labels=None, features=None)

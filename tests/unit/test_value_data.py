from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from dot_world import DotDataset

from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.value_model.data import prepare, read_states, task_rows
from robolift.value_model.recipe import Recipe


def recipe(**changes):
    return Recipe(
        **{"state_keys": ["observation.state", "gripper"], "val_fraction": 0.25, "warmup_steps": 1, **changes}
    )


def test_states_are_joined_and_normalised_over_the_training_episodes():
    dataset = DotDataset()
    data = prepare(recipe(), dataset, dataset.targets)
    assert data.state_dims == (5, 1)
    train = data.states[data.train_rows].astype(np.float64)
    assert train.mean(0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert train.std(0) == pytest.approx([1, 1, 1, 1, 0, 1], abs=1e-6)  # the fifth is constant and stays unscaled
    assert np.allclose(
        data.state_norm(np.column_stack([dataset.columns["observation.state"], dataset.columns["gripper"]])),
        data.states,
    )
    assert sorted([*data.train_rows, *data.val_rows]) == list(range(dataset.num_frames))
    episode = dataset.frames.column("episode_index").to_numpy()
    assert np.unique(episode[data.val_rows]).tolist() == data.held_out.tolist()
    assert len(data.held_out) == 2


def test_action_chunks_stop_at_the_end_of_the_episode():
    dataset = DotDataset(lengths=(3, 2, 4), tasks=("go",))
    data = prepare(recipe(val_fraction=0), dataset, dataset.targets)
    chunk, real = data.action_chunk(np.array([1, 4, 5]), 3)
    assert real.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert np.array_equal(chunk[0], data.actions[[1, 2, 2]])
    assert np.array_equal(chunk[1], data.actions[[4, 4, 4]])
    assert np.array_equal(chunk[2], data.actions[[5, 6, 7]])


def test_no_actions_are_read_when_no_head_would_use_them():
    dataset = DotDataset()
    del dataset.columns["action"]
    assert prepare(recipe(cameras=[]), dataset, dataset.targets).actions.shape == (dataset.num_frames, 0)
    assert prepare(recipe(action_weight=0), dataset, dataset.targets).actions.shape == (dataset.num_frames, 0)


def test_episodes_are_held_out_whole_by_outcome_and_seed():
    success = np.array([1] * 20 + [0] * 10 + [-1] * 10)
    train, held = split_episodes(success, 0.2, 0)
    assert sorted([*train, *held]) == list(range(40))
    assert [(success[held] == outcome).sum() for outcome in (1, 0, -1)] == [4, 2, 2]
    assert np.array_equal(split_episodes(success, 0.2, 0)[1], held)
    assert not np.array_equal(split_episodes(success, 0.2, 1)[1], held)
    assert len(split_episodes(success, 0.0, 0)[1]) == 0


def test_a_small_share_of_few_episodes_holds_out_one():
    train, held = split_episodes(np.array([1, 1, 0, 0]), 0.1, 0)
    assert (len(train), len(held)) == (3, 1)


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(UsageError, match=r"val_fraction 0\.9 of 1 episodes leaves none to train on"):
        split_episodes(np.array([1]), 0.9, 0)
    with pytest.raises(UsageError, match="leaves none"):
        split_episodes(np.array([1, 0]), 0.99, 0)


def test_tasks_by_row():
    dataset = DotDataset(lengths=(2, 1, 3), tasks=("a", "b"))
    assert task_rows(dataset, ("b", "a")).tolist() == [1, 1, 0, 1, 1, 1]
    assert task_rows(dataset, ("b", "a"), [1, 2]).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"cameras": ["front", "top"]}, "no top in the dataset; it has: front, side")],
)
def test_what_the_dataset_does_not_have_is_named(changes, text):
    dataset = DotDataset()
    with pytest.raises(UsageError, match=text):
        prepare(recipe(**changes), dataset, dataset.targets)


def test_a_model_that_would_see_nothing_is_refused():
    dataset = DotDataset(cameras=())
    with pytest.raises(UsageError, match="see nothing"):
        prepare(recipe(state_keys=[]), dataset, dataset.targets)


def test_targets_of_other_frames_are_refused():
    dataset = DotDataset()
    with pytest.raises(DataError, match="frames are not the dataset's 68 frames"):
        prepare(recipe(), dataset, dataset.targets.slice(0, 30))
    with pytest.raises(DataError, match="frames are not the dataset's 68 frames"):
        prepare(recipe(), dataset, DotDataset(lengths=(9, 7, 5, 12, 8, 6, 10, 11)).targets)


@pytest.mark.parametrize("value", [0.01, -1.01, float("nan")])
def test_a_target_outside_the_support_is_refused(value):
    dataset = DotDataset()
    values = dataset.targets.column("value_target").to_numpy().copy()
    values[17] = value
    targets = dataset.targets.set_column(2, "value_target", pa.array(values))
    with pytest.raises(DataError, match=r"row 17(.|\n)*\[-1, 0\]"):
        prepare(recipe(), dataset, targets)


def test_a_state_that_is_not_a_number_is_placed():
    dataset = DotDataset()
    dataset.columns["gripper"][8] = np.nan
    with pytest.raises(DataError, match=r"gripper(.|\n)*episode 1, frame 1"):
        prepare(recipe(), dataset, dataset.targets)


def test_a_shard_s_broken_state_is_placed_in_the_whole_dataset():
    dataset = DotDataset()
    dataset.columns["gripper"][18] = np.inf
    with pytest.raises(DataError, match=r"episode 2, frame 2"):
        read_states(dataset, ["gripper"], [1, 2, 3])


def test_a_state_of_text_is_refused():
    dataset = DotDataset()
    dataset.columns["gripper"] = np.array(["open"] * dataset.num_frames, object)
    with pytest.raises(DataError, match="gripper holds no numbers"):
        prepare(recipe(), dataset, dataset.targets)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 7, "num_processes": 2}, "can't be shared"),
        ({"steps": 5, "warmup_steps": 5}, "below steps"),
        ({"select": "best", "val_fraction": 0}, "val_fraction"),
        ({"state_keys": [], "cameras": []}, "a camera or a state key"),
    ],
)
def test_recipes_that_contradict_themselves(changes, text):
    with pytest.raises(ValueError, match=text):
        recipe(**changes)

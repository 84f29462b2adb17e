"""kai0's parity vectors, as the script labels and as we do, and what each form makes of awkward data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from labelled import column, label, publish_dataset, publish_values

from robolift import storage
from robolift.errors import DataError
from robolift.labeling.advantage import ShortTail, absolute_advantage, may_be_ranked, progress_advantage
from robolift.labeling.cut_rule import CutRule, Tie
from robolift.labeling.discretize import Candidates, Discretized, discretize
from robolift.labeling.kai0 import kai0_cut, kai0_edges, kai0_stages
from robolift.labeling.population import task_stages

ONE_TO_TEN = np.arange(1.0, 11.0)
TENTHS = np.arange(10) / 10
# The labels of ten frames: kai0's, and ours with an exact share.
LEGACY = {"preset": "kai0_legacy", "source": "column", "column": "value"}
CORRECTED = {"preset": "stage_advantage", "source": "column", "column": "value"}


def rank(values: Any, tie: Tie, *, num_slices: int | None = None, fraction: float = 0.3) -> Discretized:
    array = np.asarray(values, np.float32)
    everywhere = np.ones(len(array), dtype=bool)
    group = np.zeros(len(array), np.int64)
    frames = Candidates(advantage=array, population=everywhere, scored=everywhere, group=group)
    return discretize(frames, CutRule(positive_fraction=fraction, tie=tie, num_slices=num_slices), ["all"])


def percentile_cut(pool: np.ndarray, fraction: float, *, single: bool = False) -> float:
    return kai0_cut(len(pool), np.sort(pool).__getitem__, fraction, single=single)


def test_progress_vector() -> None:
    progress, starts = np.array([0.0, 0.1, 0.2, 0.3, 0.4]), np.array([0, 5])
    legacy, ranked = progress_advantage(progress, starts, lookahead=2, short_tail=ShortTail.KAI0_LEGACY)
    assert legacy == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0], abs=1e-15)
    assert ranked.tolist() == [True] * 5
    ours, ranked = progress_advantage(progress, starts, lookahead=2)
    assert ours == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.0], abs=1e-15)
    assert ranked.tolist() == [True] * 4 + [False]


def test_linear_progress_falls_towards_the_end_in_kai0_only() -> None:
    progress, starts = np.linspace(0, 1, 200), np.array([0, 200])
    legacy, _ = progress_advantage(progress, starts, lookahead=50, short_tail=ShortTail.KAI0_LEGACY)
    assert [round(float(legacy[i]), 4) for i in (0, 100, 149, 150, 199)] == [0.2513, 0.2513, 0.2513, 0.2462, 0.0]
    ours, _ = progress_advantage(progress, starts, lookahead=50)
    assert ours[:199] == pytest.approx(50 / 199)


def test_prediction_vector() -> None:
    value, starts = np.array([0, 0.1, 0.3, 0.6]), np.array([0, 4])
    found, valid = absolute_advantage(value, starts, lookahead=2)
    assert found == pytest.approx([0.3, 0.5, 0.6, 0.0])
    assert valid.tolist() == [True, True, True, False]
    legacy, valid = absolute_advantage(value, starts, lookahead=2, short_tail=ShortTail.KAI0_LEGACY)
    assert legacy.tolist() == found.tolist()
    assert valid.tolist() == [True] * 4


def test_binary_vector() -> None:
    found = rank(ONE_TO_TEN, Tie.KAI0_LEGACY)
    assert found.cuts[0].cut == 7.3
    assert found.positive.tolist() == [False] * 7 + [True] * 3
    assert rank(ONE_TO_TEN, Tie.EXACT).positive.tolist() == [False] * 7 + [True] * 3
    assert rank(ONE_TO_TEN, Tie.AT_LEAST).positive.tolist() == [False] * 7 + [True] * 3


def test_slices_vector() -> None:
    legacy = rank(ONE_TO_TEN, Tie.KAI0_LEGACY, num_slices=4)
    assert legacy.slices.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert legacy.cuts[0].edges == (1.0, 3.25, 5.5, 7.75)
    assert rank(ONE_TO_TEN, Tie.EXACT, num_slices=4).slices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        (LEGACY, [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]),
        # round(0.3 * 5) = 2 of each stage, half to even: the same here.
        (CORRECTED, [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]),
        # 0.31 * 5 = 1.55 is 2 as well; kai0's interpolated cut takes 2 of 5 for any share between 0.25 and 0.5.
        ({**LEGACY, "positive_fraction": 0.26}, [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]),
        ({**CORRECTED, "positive_fraction": 0.26}, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
    ],
)
def test_two_stages_vector(config: dict[str, Any], labels: list[int], output_root: str) -> None:
    dataset = publish_dataset(output_root, [10], kind="demo")
    values = publish_values(output_root, dataset, ONE_TO_TEN, std=TENTHS)
    stages = {"group_by": "task_stage", "num_task_stages": 2, "stage_progress_column": "value_std"}
    made = label(output_root, dataset, values=values, **config, **stages)
    assert [name == "positive" for name in column(made, "advantage_label")] == labels


def test_ties_at_the_minimum() -> None:
    tied = [0.0] * 8 + [1.0, 2.0]
    legacy = rank(tied, Tie.KAI0_LEGACY, num_slices=4)
    assert legacy.positive.all()
    assert legacy.slices.tolist() == [3] * 10
    assert (legacy.cuts[0].cut, legacy.cuts[0].num_ties, legacy.cuts[0].achieved) == (0.0, 8, 1.0)
    exact = rank(tied, Tie.EXACT, num_slices=4)
    assert exact.positive.tolist() == [False] * 7 + [True] * 3
    assert exact.slices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_a_constant_group() -> None:
    assert rank(np.full(5, 0.25), Tie.KAI0_LEGACY).positive.all()
    with pytest.raises(DataError, match=r"all 5 advantages of the population are 0\.25"):
        rank(np.full(5, 0.25), Tie.EXACT)


def test_one_frame_alone_is_negative_under_an_exact_share(output_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank([0.25], Tie.EXACT).positive.tolist() == [False]
    with pytest.raises(DataError, match="all 1 advantages"):
        rank([0.25], Tie.AT_LEAST)
    # A stray frame in a stage of its own does not end the labelling of all others.
    dataset = publish_dataset(output_root, [5], kind="demo")
    values = publish_values(output_root, dataset, [1, 2, 3, 4, 5], std=[0, 0.1, 0.2, 0.3, 0.9])
    stages = {"group_by": "task_stage", "num_task_stages": 2, "stage_progress_column": "value_std"}
    made = label(output_root, dataset, values=values, positive_fraction=0.25, **CORRECTED, **stages)
    assert column(made, "advantage_label") == [*["negative"] * 3, "positive", "negative"]
    assert "too few frames for one of them to be positive" in "".join(capsys.readouterr())


@pytest.mark.parametrize(("percent", "fraction"), [(29, 0.29), (7, 0.07), (33.3, 0.333), (70, 0.7)])
def test_the_cut_is_at_the_percentage_that_was_meant(percent: float, fraction: float) -> None:
    pool = np.random.default_rng(0).normal(size=1001)
    assert percentile_cut(pool, fraction) == np.percentile(pool, 100 - percent)


def test_cuts_are_computed_in_the_precision_of_the_pool() -> None:
    # 0.7 of the way from 0.1 to 0.4: in float32 the interpolated number is another one.
    pool = np.array([0.1, 0.4], np.float32)
    double, single = percentile_cut(pool, 0.3), percentile_cut(pool, 0.3, single=True)
    assert double == np.percentile(pool.astype(np.float64), 70.0)
    assert single == float(np.percentile(pool, 70.0))
    assert double != single


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_percentile_is_numpys_to_the_bit(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for num in (1, 2, 3, 10, 101, 1000):
        pool = rng.normal(size=num).astype(np.float32).astype(dtype)
        at, single = np.sort(pool).__getitem__, dtype == np.float32
        for percent in range(1, 100):
            assert percentile_cut(pool, percent / 100, single=single) == float(np.percentile(pool, 100.0 - percent))
        for slices in (2, 3, 7):
            expected = [float(np.percentile(pool, 100 / slices * number)) for number in range(slices)]
            assert kai0_edges(num, at, slices, single=single).tolist() == expected


def test_frames_on_the_edge_of_a_stage() -> None:
    edges = np.array([0.3, 0.7, 1.0])
    assert kai0_stages(edges, 10).tolist() == [2, 6, 9]  # 0.3 / 0.1 is 2.9999999999999996
    assert kai0_stages(edges.astype(np.float32), 10).tolist() == [3, 6, 9]
    assert kai0_stages(np.array([0.6]), 5).tolist() == [2]
    assert kai0_stages(np.array([0.6], np.float32), 5).tolist() == [3]
    for dtype in (np.float32, np.float64):
        assert task_stages(edges.astype(dtype), 10).tolist() == [3, 7, 9]
        assert task_stages(np.array([0.6], dtype), 5).tolist() == [3]


def test_progress_beyond_its_bounds() -> None:
    # int() cuts towards 0, so a little below 0 is the first stage in kai0; ours are cut off at both ends.
    assert kai0_stages(np.array([-0.4, -0.9, 1.7]), 2).tolist() == [0, 0, 1]
    assert task_stages(np.array([-0.4, -0.9, 1.7]), 2).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("short_tail", "advantage", "ranked"),
    [
        # Episodes of 1, 2 and 4 frames, rising by 0.1 a frame, and a lookahead of 3.
        (ShortTail.SCALE, [0, 0.3, 0, 0.3, 0.3, 0.3, 0], [0, 1, 0, 1, 1, 1, 0]),
        (ShortTail.DROP, [0, 0.3, 0, 0.3, 0.3, 0.3, 0], [0, 0, 0, 1, 0, 0, 0]),
        (ShortTail.KAI0_LEGACY, [0, 0.15, 0, 0.3, 0.2, 0.15, 0], [1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_episodes_shorter_than_the_lookahead(short_tail: ShortTail, advantage: list[float], ranked: list[int]) -> None:
    progress, starts = np.array([0, 0, 0.1, 0, 0.1, 0.2, 0.3]), np.array([0, 1, 3, 7])
    found, valid = progress_advantage(progress, starts, lookahead=3, short_tail=short_tail)
    assert found == pytest.approx(advantage)
    assert valid.tolist() == [bool(one) for one in ranked]
    assert may_be_ranked(starts, lookahead=3, short_tail=short_tail).tolist() == valid.tolist()


def test_the_preset_labels_as_kai0s_script_does(output_root: str) -> None:
    """A correction is ranked like the rest, the last frame too, and all that tie with the cut are positive."""
    modes = ["autonomous"] * 9 + ["correcting"]
    dataset = publish_dataset(output_root, [10], control_mode=modes)
    values = publish_values(output_root, dataset, [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0.2])
    legacy = label(output_root, dataset, values=values, preset="kai0_legacy", lookahead=1)
    assert column(legacy, "advantage") == pytest.approx([0] * 7 + [0.5, -0.3, 0.0])
    # The cut is 0: everything that does not fall is positive.
    assert column(legacy, "advantage_label") == ["positive"] * 8 + ["negative", "positive"]
    assert column(legacy, "reason") == ["threshold"] * 10
    ours = label(output_root, dataset, values=values, preset="stage_advantage", lookahead=1)
    assert column(ours, "reason") == ["threshold"] * 9 + ["forced_intervention"]
    # round(0.3 * 9) of the autonomous frames: the one that rises, and of the equal ones the last two.
    assert column(ours, "advantage_label") == [*["negative"] * 5, *["positive"] * 3, "negative", "positive"]


def test_stages_that_no_frame_is_in(output_root: str) -> None:
    dataset = publish_dataset(output_root, [4], kind="demo")
    values = publish_values(output_root, dataset, [1, 2, 3, 4], std=[0, 0.1, 0.8, 0.9])
    stages = {"group_by": "task_stage", "num_task_stages": 3, "stage_progress_column": "value_std"}
    for config, cut in ((LEGACY, 0.0), (CORRECTED, None)):
        made = label(output_root, dataset, values=values, positive_fraction=0.5, **stages, **config)
        summary = storage.read_json(made.file("summary.json"))
        assert list(summary["groups"]) == ["fold, stage 0", "fold, stage 2"]
        assert summary["empty_groups"] == {"fold, stage 1": cut}
        assert column(made, "advantage_label") == ["negative", "positive"] * 2


def test_one_unknown_advantage_is_refused_in_every_form(output_root: str) -> None:
    # kai0's cut becomes NaN then, and every frame negative without a word.
    dataset = publish_dataset(output_root, [4])
    values = publish_values(output_root, dataset, [0.1, np.nan, 0.3, 0.4])
    for config in (LEGACY, CORRECTED):
        with pytest.raises(DataError, match="is nan in 1 frames that are ranked") as caught:
            label(output_root, dataset, values=values, **config)
        assert "episode 0, frame 1" in str(caught.value)

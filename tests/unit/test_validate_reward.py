"""Whether a reward passes: the correlation by hand, its intervals, controls, ablations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clip_sets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift import storage
from robolift.clips import validation
from robolift.clips.validation import Chance, Outcomes, Resamples
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute


def _row(
    subset: int, m: float, *, group: str = "stratum", seed: int = 0, clips: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {"subset": subset, "group": group, "seed": seed, "m": m, "clips": list(clips)}


ROWS = [
    _row(0, -3.0, clips=("a", "b")),
    _row(0, -2.0, seed=1, clips=("a", "b")),
    _row(1, -1.0, clips=("b", "c")),
    _row(1, -2.0, seed=1, clips=("b", "c")),
    _row(2, -1.0, clips=("c", "d")),
    _row(2, 0.0, seed=1, clips=("c", "d")),
    _row(3, -1.0, group="random"),
    _row(3, -2.0, group="random", seed=1),
    _row(4, -2.0, group="random"),
    _row(4, -3.0, group="random", seed=1),
]
"""M of the strata: -2.5, -1.5, -0.5; of the random subsets -1.5 and -2.5, -2 on average."""


def test_delta_m_by_hand() -> None:
    found = Outcomes.of(ROWS, where="")
    assert found.subset == (0, 1, 2)
    assert found.baseline == -2.0
    assert found.baseline_std == 0.5
    assert found.delta_m == pytest.approx([-0.5, 0.5, 1.5])
    scores = {"a": 0.0, "b": 1.0, "c": 3.0, "d": 2.0}
    assert found.mean_scores(scores) == pytest.approx([0.5, 2.0, 2.5])
    # Means 5/3 and 1/2: (7/6 + 0 + 5/6) / sqrt((49 + 4 + 25) / 36 * 2) = 2 / sqrt(156 / 36)
    rho = validation.pearson(found.mean_scores(scores), found.delta_m)
    assert float(rho) == pytest.approx(2 / np.sqrt(156 / 36))
    assert float(validation.spearman(found.mean_scores(scores), found.delta_m)) == pytest.approx(1.0)


def test_a_better_subset_has_a_positive_delta_m() -> None:
    """The prototype subtracted validation losses, the better one's minus the worse one's, and hoped for more than 0."""
    loss_of_best, loss_of_worst, loss_of_random = 0.2, 0.9, 0.5
    rows = [_row(0, -loss_of_worst), _row(1, -loss_of_random), _row(2, -loss_of_best)]
    found = Outcomes.of([*rows, _row(3, -loss_of_random, group="random")], where="")
    assert found.delta_m == pytest.approx([-0.4, 0.0, 0.3])
    assert loss_of_best - loss_of_worst < 0 < found.delta_m[2] - found.delta_m[0]


def test_the_order_of_rows_does_not_matter() -> None:
    one, other = Outcomes.of(ROWS, where=""), Outcomes.of(ROWS[::-1], where="")
    assert one.delta_m.tolist() == other.delta_m.tolist()
    assert one.clips == other.clips


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ROWS[0]], "subset 0 with seed 0 stands twice"),
        (ROWS[1:], "different seeds"),
        (ROWS[:6], "3 stratified and 0 random subsets"),
        (ROWS[2:], "2 stratified and 2 random subsets"),
    ],
)
def test_incomplete_outcomes_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Outcomes.of(rows, where="")


def test_ranks_share_ties() -> None:
    assert validation.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    # Spearman's by 1 - 6 sum d² / (n (n² - 1)): d = 1, 1, 0, 0.
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 3.0, 4.0])
    assert float(validation.spearman(a, b)) == pytest.approx(1 - 6 * 2 / 60)
    assert float(validation.spearman(a, np.full(4, 0.1))) == 0.0
    assert float(validation.pearson(np.full(4, 1 / 3), b)) == 0.0


finite = st.floats(-100, 100).map(lambda value: round(value, 3))


@settings(max_examples=50, deadline=None)
@given(
    points=st.lists(st.tuples(finite, finite), min_size=3, max_size=20),
    scale=st.floats(0.01, 100),
    shift=finite,
    data=st.data(),
)
def test_affine_maps_and_order_leave_rho(
    points: list[tuple[float, float]], scale: float, shift: float, data: st.DataObject
) -> None:
    x, y = np.array(points).T
    for measure in (validation.pearson, validation.spearman):
        rho = float(measure(x, y))
        order = np.array(data.draw(st.permutations(range(len(x)))))
        assert float(measure(x[order], y[order])) == pytest.approx(rho, abs=1e-6)
        if len(set(x)) == len(set(np.round(scale * x + shift, 12))):
            assert float(measure(scale * x + shift, y)) == pytest.approx(rho, abs=1e-4)
            assert float(measure(-x, y)) == pytest.approx(-rho, abs=1e-6)
        assert float(measure(x, y + shift)) == pytest.approx(rho, abs=1e-4)  # the baseline of dM shifts only
        assert -1 - 1e-9 <= rho <= 1 + 1e-9


def test_what_so_many_subsets_can_tell() -> None:
    for num, low, high in ((20, 0.07, 0.77), (50, 0.26, 0.68), (100, 0.34, 0.63)):
        assert validation.fisher_interval(0.5, num) == pytest.approx((low, high), abs=0.005)
    assert validation.fisher_interval(0.5, 3) is None


def test_the_bootstrap_interval_is_near_fishers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=50)
    resamples = Resamples.draw(50, samples=2000, confidence=0.95, seed=0)
    found = validation.correlation(x, y, resamples)
    low, high = validation.fisher_interval(found["pearson"], 50) or (0, 0)
    assert found["pearson_lower"] == pytest.approx(low, abs=0.1)
    assert found["pearson_upper"] == pytest.approx(high, abs=0.1)
    assert found["lower"] < found["rho"] < found["upper"]


def test_paired_intervals_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    full, ablated = y + rng.normal(size=100), np.zeros(100)
    ablated = full + 0.3 * rng.normal(size=100)
    resamples = Resamples.draw(100, samples=1000, confidence=0.95, seed=0)
    found = validation.drop_in_rho(full, ablated, y, resamples, drop_min=0.1)
    whole, part = (validation.correlation(x, y, resamples) for x in (full, ablated))
    assert found["drop_in_rho"] == pytest.approx(whole["rho"] - part["rho"])
    assert found["upper"] - found["lower"] < 0.5 * (whole["upper"] - whole["lower"])
    assert not found["passed"]
    useless = validation.drop_in_rho(full, rng.normal(size=100), y, resamples, drop_min=0.1)
    assert useless["passed"]
    assert validation.drop_in_rho(full, full, y, resamples, drop_min=0.0)["passed"] is False


def test_chance_is_that_of_separate_subsets() -> None:
    rng = np.random.default_rng(0)
    names = [f"{number:02d}" for number in range(30)]
    worth = dict(zip(names, rng.normal(size=30), strict=True))
    rows = [_row(k, float(rng.normal()), clips=tuple(names[3 * k : 3 * k + 3])) for k in range(10)]
    outcomes = Outcomes.of([*rows, _row(99, 0.0, group="random")], where="")
    resamples = Resamples.draw(10, samples=2000, confidence=0.95, seed=0)
    # Spearman's 97.5 % quantile of ten independent pairs is 0.648 (Zar 1984).
    assert validation.chance(outcomes, worth, 0.9, resamples=resamples, seed=0).upper == pytest.approx(0.648, abs=0.04)


def test_what_passes() -> None:
    luck = Chance(upper=0.35, share_as_good=0.0)
    good = {"rho": 0.6, "lower": 0.3, "upper": 0.8, "subsets": 60}
    assert validation.failures(good, luck, rho_min=0.5) == []
    assert validation.failures({**good, "rho": 0.5}, luck, rho_min=0.5) == []
    assert len(validation.failures({**good, "rho": 0.49}, luck, rho_min=0.5)) == 1
    assert validation.failures({**good, "lower": 0.0}, luck, rho_min=0.5) == [
        "the interval of rho, [0.000, 0.800], is not above 0"
    ]
    assert validation.failures(good, Chance(upper=0.61, share_as_good=0.03), rho_min=0.5) == [
        "shuffled scores reach a rho of 0.610 too"
    ]
    assert validation.failures({**good, "subsets": 49}, luck, rho_min=0.5) == ["49 subsets are fewer than 50"]


class Run:
    """One world, from preferences to subsets; each test validates something of it."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root = root
        self.world = clip_sets.make_world(root, num_participants=24)
        pairs = clip_sets.random_pairs(self.world, 800)
        uri = clip_sets.preferences_csv(folder / "said.csv", self.world, pairs)
        self.said = execute("import_preferences", {"preferences_uri": uri}, {"clips": self.world.clips.uri}, root)
        self.model, self.scores = self.reward()
        self.blind = self.reward(drop=["motion", "hands", "blur", "embedding"])[1]
        self.controls = [
            execute("score_clips", {"method": method}, {"features": self.world.features.uri}, root)
            for method in ("random", "composite", "motion")
        ]

    def reward(self, **config: Any) -> tuple[Manifest, Manifest]:
        features = self.world.features.uri
        given = {"features": features, "preferences": self.said.uri, "clips": self.world.clips.uri}
        model = execute("train_reward", {"ensemble": 2, **config}, given, self.root)
        return model, execute("score_clips", {}, {"features": features, "model": model.uri}, self.root)

    def train(self, **config: Any) -> Manifest:
        given = {"features": self.world.features.uri, "scores": self.scores.uri, "clips": self.world.clips.uri}
        small = {"num_subsets": 50, "num_random": 5, "num_seeds": 1, "components": clip_sets.WIDTH}
        return execute("train_downstream", {**small, **config}, given, self.root)

    def validate(self, *shards: Manifest, **config: Any) -> Manifest:
        given = {
            "scores": self.scores.uri,
            "downstream": [shard.uri for shard in shards],
            "features": self.world.features.uri,
            "model": self.model.uri,
            "controls": [control.uri for control in self.controls],
            "ablations": [self.blind.uri],
        }
        return execute("validate_reward", config, given, self.root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("validated")
    return Run(str(folder / "runs"), folder)


def test_a_reward_that_knows_the_worth_of_clips_passes(made: Run) -> None:
    found = storage.read_json(made.validate(made.train()).file("validation.json"))
    assert found["passed"], found["reasons"]
    assert found["rho"]["subsets"] == 50
    assert found["rho"]["lower"] > 0.3
    assert set(found["controls"]) == {"random", "composite", "motion"}
    assert max(control["rho"] for control in found["controls"].values()) < found["rho"]["rho"]
    assert found["controls"]["random"]["lower"] < 0.2
    (ablation,) = found["ablations"]
    assert ablation["drop"] == ["motion", "hands", "blur", "embedding"]
    assert ablation["passed"]
    assert ablation["lower"] > 0.1
    assert found["chance"]["share_as_good"] == 0.0
    assert found["chance"]["upper"] < found["rho"]["rho"]
    assert found["power"]["interval_of_rho_min"] == pytest.approx([0.26, 0.68], abs=0.005)
    assert found["preferences"]["held_out"]["pair_auc"] > 0.8
    assert len(found["delta_m"]) == 50


def test_the_cut_leads_to_one_address(made: Run) -> None:
    whole = made.validate(made.train(), bootstrap=100)
    shards = [made.train(shard=shard, num_shards=3) for shard in range(3)]
    assert made.validate(*shards, bootstrap=100).uri == whole.uri
    content = storage.read_bytes(whole.file("validation.json"))
    storage.remove(whole.uri)
    again = made.validate(*shards[::-1], bootstrap=100)
    assert again.uri == whole.uri
    assert storage.read_bytes(again.file("validation.json")) == content
    with pytest.raises(DataError, match="the shards are not one experiment"):
        made.validate(*shards[:2], bootstrap=100)
    other = made.train(shard=2, num_shards=3, penalty=99.0)
    with pytest.raises(DataError, match="the shards are not one experiment"):
        made.validate(*shards[:2], other, bootstrap=100)


def test_the_numbers_of_a_reward_that_does_not_pass_are_published_with_why(made: Run) -> None:
    shard = made.train()
    found = storage.read_json(made.validate(shard, rho_min=1.0).file("validation.json"))
    assert (found["passed"], found["gate"]) == (False, True)
    assert "is below 1.0" in found["reasons"][0]
    assert storage.read_json(made.validate(shard, gate=False).file("validation.json"))["gate"] is False


def test_scores_that_do_not_belong_are_refused(made: Run) -> None:
    shard = made.train()
    given = {"downstream": [shard.uri], "features": made.world.features.uri, "scores": made.controls[0].uri}
    with pytest.raises(DataError, match="the subsets were drawn by other scores"):
        execute("validate_reward", {}, given, made.root)
    given["scores"] = made.scores.uri
    with pytest.raises(UsageError, match="which leaves no feature out"):
        execute("validate_reward", {}, {**given, "ablations": [made.scores.uri]}, made.root)
    other_model, _ = made.reward(ensemble=1)
    with pytest.raises(DataError, match="the scores are by another model"):
        execute("validate_reward", {}, {**given, "model": other_model.uri}, made.root)
    world = clip_sets.make_world(made.root, num_participants=2, clips=6)
    elsewhere = execute("score_clips", {"method": "random"}, {"features": world.features.uri}, made.root)
    with pytest.raises(DataError, match="controls are of other features"):
        execute("validate_reward", {}, {**given, "controls": [elsewhere.uri]}, made.root)
    twice = [
        made.controls[0].uri,
        execute("score_clips", {"method": "random", "seed": 1}, {"features": made.world.features.uri}, made.root).uri,
    ]
    with pytest.raises(UsageError, match="controls has two scores of random"):
        execute("validate_reward", {}, {**given, "controls": twice}, made.root)

"""People's comparisons: read from the prototype's CSV or the page's events, and measured."""

from __future__ import annotations

import math
from pathlib import Path

import clip_sets
import numpy as np
import pytest
import review_events
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift import schema, storage
from robolift.clips import preferences
from robolift.clips.preferences import Answer, accuracy_ceiling, expected_pair_auc
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.reward_model.metrics import pair_auc
from robolift.stages.stage import execute

HEADER = "pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id"


SAID_A = (("prefer", "A"), ("complete", None))


def _answer(a: str, b: str, said: str, *, pair: str = "", who: str = "ann", time: str = "") -> Answer:
    return Answer(
        pair_id=pair or f"{a}{b}{said}", clip_a_id=a, clip_b_id=b, preference=said, timestamp=time, annotator_id=who
    )


def _prototype_csv() -> str:
    """As many as the prototype's: 40 by one person, 19 A, 15 B, 6 ties; of 5 repeated pairs 3 differ, 2 outright."""
    clips = [f"clip_{number:02d}" for number in range(20)]
    fresh = [(clips[row], clips[(row + step) % 20]) for step in (1, 3) for row in range(20)][:35]
    said = ["A"] * 18 + ["B"] * 12 + ["tie"] * 5
    lines = [(a, b, choice) for (a, b), choice in zip(fresh, said, strict=True)]
    lines += [
        (*fresh[0][::-1], "B"),  # A before: alike, the sides exchanged
        (*fresh[18], "B"),  # B before: alike
        (*fresh[1], "tie"),  # A before: differs
        (*fresh[2][::-1], "A"),  # A before, of the other side: a contradiction
        (*fresh[19][::-1], "B"),  # B before, of the other side: a contradiction
    ]
    rows = [
        f"{number},{a},{b},{choice},2025-11-08T10:00:{number:02d},yubo" for number, (a, b, choice) in enumerate(lines)
    ]
    return "\n".join([HEADER, *rows]) + "\n"


def test_the_prototypes_annotations_disagree_with_themselves() -> None:
    answers = preferences.read_csv(_prototype_csv().encode(), where="preferences.csv")
    found = preferences.describe(answers)
    assert found["annotations"] == 40
    assert found["preferences"] == {"A": 19, "B": 15, "tie": 6}
    assert found["pairs"] == 35
    assert found["repeats"] == {"pairs": 5, "without_ties": 4}
    assert found["repeat_consistency"] == pytest.approx(2 / 5)
    assert len(found["contradictions"]) == 2
    # Of four repeats without a tie two are alike: such answers are a coin's, and no model can foretell them.
    assert found["accuracy_ceiling"] == 0.5


@pytest.mark.parametrize(("repeated", "ceiling"), [(1.0, 1.0), (0.82, 0.9), (0.68, 0.8), (0.5, 0.5), (0.4, 0.5)])
def test_the_ceiling_by_hand(repeated: float, ceiling: float) -> None:
    # 0.9² + 0.1² = 0.82, 0.8² + 0.2² = 0.68
    assert accuracy_ceiling(repeated) == pytest.approx(ceiling)


def test_the_ceiling_is_what_the_best_model_reaches_on_simulated_answers() -> None:
    rng = np.random.default_rng(0)
    for usual in (0.6, 0.75, 0.95):
        first, second = rng.random((2, 200_000)) < usual  # whether each answer is the usual one
        assert accuracy_ceiling(float((first == second).mean())) == pytest.approx(first.mean(), abs=0.01)


def test_the_ceiling_is_an_upper_bound_where_pairs_differ_in_difficulty() -> None:
    rng = np.random.default_rng(1)
    usual = rng.uniform(0.5, 1.0, size=200_000)
    first, second = rng.random((2, 200_000)) < usual
    assert accuracy_ceiling(float((first == second).mean())) > first.mean() + 0.01


def test_the_auc_of_the_true_order_by_hand() -> None:
    # Margins of one size: q² + (1 - q)² = 0.82 gives q = 0.9, and all pairs count alike.
    assert expected_pair_auc(np.array([2.0, -2.0, 2.0]), 0.82) == pytest.approx(0.9)
    # Margins 0 and 1: together they repeat with (0.5 + 0.82) / 2 = 0.66, so q is 0.5 and 0.9; weights 1 and 3.
    assert expected_pair_auc(np.array([0.0, 1.0]), 0.66) == pytest.approx((0.5 + 3 * 0.9) / 4)
    assert expected_pair_auc(np.array([1.0, 2.0]), 1.0) == pytest.approx(1.0)
    assert expected_pair_auc(np.array([1.0, 2.0]), 0.4) == pytest.approx(0.5, abs=1e-4)
    assert expected_pair_auc(np.zeros(3), 0.8) is None
    assert expected_pair_auc(np.zeros(0), 0.8) is None


def test_the_auc_of_the_true_order_is_estimated_from_repeats_and_is_more_than_the_accuracy() -> None:
    """Annotators of beta 4 on utilities that spread by 0.65: by the true order 0.942, by symmetric noise 0.892."""
    rng = np.random.default_rng(0)
    difference = 0.65 * np.sqrt(2) * rng.normal(size=40_000)
    first, second = (rng.logistic(size=(2, 40_000)) + 4 * difference) > 0
    repeated = float((first == second).mean())
    reached = pair_auc(np.where(first, difference, -difference))
    assert reached == pytest.approx(0.942, abs=0.004)
    # The scale of the fitted rewards is of no account.
    assert expected_pair_auc(17 * difference, repeated) == pytest.approx(reached, abs=0.004)
    assert accuracy_ceiling(repeated) == pytest.approx(0.892, abs=0.004)
    assert first[difference > 0].mean() < accuracy_ceiling(repeated) < reached


def test_circles_and_triples_by_hand() -> None:
    circle = [_answer("x", "y", "A"), _answer("y", "z", "A"), _answer("z", "x", "A")]
    assert preferences.triples(circle) == (1, 1)
    chain = [_answer("x", "y", "A"), _answer("y", "z", "A"), _answer("z", "x", "B")]
    assert preferences.triples(chain) == (0, 1)
    assert preferences.triples([*circle, *(_answer("w", clip, "A") for clip in "xyz")]) == (1, 4)
    assert preferences.triples([circle[0], circle[1], _answer("z", "x", "tie")]) == (0, 0)
    # A circle over two people is none.
    assert preferences.triples([*circle[:2], _answer("z", "x", "A", who="bob")]) == (0, 0)
    # Said both ways, a pair counts for neither.
    assert preferences.triples([*circle, _answer("y", "x", "A")]) == (0, 0)


def test_a_quarter_of_random_triples_goes_round() -> None:
    rng = np.random.default_rng(0)
    names = [f"{number:02d}" for number in range(30)]
    answers = [_answer(a, b, "AB"[rng.integers(2)]) for i, a in enumerate(names) for b in names[i + 1 :]]
    circles, found = preferences.triples(answers)
    assert found == math.comb(30, 3)
    assert circles / found == pytest.approx(0.25, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)), flip=st.integers(0, 11))
def test_order_and_sides_change_nothing(order: list[int], flip: int) -> None:
    rng = np.random.default_rng(7)
    answers = [
        _answer("abcd"[i % 3], "abcd"[3 - i % 2], ["A", "B", "tie"][rng.integers(3)], pair=str(i), who="xy"[i % 2])
        for i in range(12)
        if "abcd"[i % 3] != "abcd"[3 - i % 2]
    ]
    expected = preferences.describe(preferences.settle(answers, duplicates="last", where="")[0])
    one = answers[flip % len(answers)]
    turned = _answer(
        one.clip_b_id,
        one.clip_a_id,
        {"A": "B", "B": "A", "tie": "tie"}[one.preference],
        pair=one.pair_id,
        who=one.annotator_id,
    )
    changed = [turned if answer is one else answer for answer in answers]
    changed = [changed[row] for row in order if row < len(changed)]
    found = preferences.describe(preferences.settle(changed, duplicates="last", where="")[0])
    assert {k: v for k, v in found.items() if k != "preferences"} == {
        k: v for k, v in expected.items() if k != "preferences"
    }


def test_the_last_answer_counts() -> None:
    answers = [
        _answer("x", "y", "A", pair="1", time="2025-01-02"),
        _answer("x", "y", "B", pair="1", time="2025-01-01"),
        _answer("x", "y", "B", pair="1", who="bob", time="2025-01-01"),
    ]
    kept, twice = preferences.settle(answers, duplicates="last", where="here")
    assert [(one.annotator_id, one.preference) for one in kept] == [("ann", "A"), ("bob", "B")]
    assert twice == ["1"]
    with pytest.raises(DataError, match=r"1 pairs were answered twice"):
        preferences.settle(answers, duplicates="refuse", where="here")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2025-01-01T23:30:00+00:00", "2025-01-01T22:45:00-01:00"),  # the later one is 23:45 in UTC
        ("2025-01-01T10:00:00Z", "2025-01-01 10:00:00.5"),  # without a zone it is UTC; as letters "T" is behind " "
        ("2025-12-31", "20260101T000000Z"),
    ],
)
def test_the_last_answer_is_the_last_in_time_and_not_in_letters(earlier: str, later: str) -> None:
    answers = [
        _answer("x", "y", "B", pair="1", time=later),
        _answer("x", "y", "A", pair="1", time=earlier),
    ]
    [kept], _ = preferences.settle(answers, duplicates="last", where="here")
    assert kept.preference == "B"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair_id,clip_a_id\n1,x\n", "column clip_b_id is missing"),
        (f"{HEADER}\n1,x,y,left,t,ann\n", "preference is 'left'"),
        (f"{HEADER}\n1,x,x,A,t,ann\n", "clip x is compared with itself"),
        (f"{HEADER}\n1,x,y,A,,ann\n2,x,y,A,31.1.2025 9:05,ann\n", r"timestamp is '31\.1\.2025 9:05'[\s\S]*line 3"),
        (f"{HEADER}\n1,x,,A,t,ann\n", "clip_b_id is empty"),
        (f"{HEADER}\n1,x,y,A,t,\n", "annotator_id is empty"),
        (b"\xff\xfe\x00", "not a CSV file"),
    ],
)
def test_a_bad_csv_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        preferences.read_csv(text if isinstance(text, bytes) else text.encode(), where="p.csv")
    assert "p.csv" in str(error.value)


def test_one_id_for_two_pairs_is_refused() -> None:
    with pytest.raises(DataError, match="give repeats ids of their own"):
        preferences.settle(
            [_answer("x", "y", "A", pair="1"), _answer("y", "x", "A", pair="1", who="bob")], duplicates="last", where=""
        )


def _import(root: str, uri: str, world: clip_sets.World, pairs: Manifest | None = None, **config: object) -> Manifest:
    given = {"clips": world.clips.uri, **({"pairs": pairs.uri} if pairs else {})}
    return execute("import_preferences", {"preferences_uri": uri, **config}, given, root)


def test_a_csv_becomes_a_table(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    a, b, c = world.clip_id[:3]
    lines = [HEADER]
    lines += [f"1,{a},{b},A,2025-01-01,ann", f"1,{a},{b},B,2025-01-02,ann", f"2,{b},{c},tie,2025-01-03,ann"]
    lines += [f"1,{a},{b},B,2025-01-01,bob", f"2,{b},{c},B,2025-01-03,bob"]
    path = tmp_path / "said.csv"
    path.write_text("\n".join(lines))
    made = _import(output_root, str(path), world)
    rows = schema.read_parquet(made.file("preferences.parquet")).to_pylist()
    assert [(row["pair_id"], row["annotator_id"], row["preference"]) for row in rows] == [
        ("1", "ann", "B"),
        ("1", "bob", "B"),
        ("2", "ann", "tie"),
        ("2", "bob", "B"),
    ]
    found = storage.read_json(made.file("agreement.json"))
    assert found["duplicates"] == 1
    assert found["repeat_consistency"] is None
    # Values B B / tie B: coincidences o(B,B) = 2, o(B,tie) = o(tie,B) = 1; n_B = 3, n_tie = 1, n = 4:
    # alpha = 1 - (4 - 1) * 2 / (2 * 3 * 1) = 0.
    assert found["alpha"] == pytest.approx(0.0)
    assert made.counts["annotations"] == 4
    path.write_text("\n".join([*lines, f"3,{a},{c},A,2025-01-04,bob"]))
    assert _import(output_root, str(path), world).digest != made.digest  # the content is part of the identity


def test_unknown_clips_and_pairs_are_refused(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    a, b = world.clip_id[:2]
    path = tmp_path / "said.csv"
    path.write_text(f"{HEADER}\n1,{a},elsewhere,A,,ann\n")
    with pytest.raises(DataError, match="pair 1 is about clip elsewhere, which is not known"):
        _import(output_root, str(path), world)
    pairs = execute("propose_pairs", {"num_pairs": 3}, {"clips": world.clips.uri}, output_root)
    path.write_text(f"{HEADER}\nmine,{a},{b},A,,ann\n")
    with pytest.raises(DataError, match="was not proposed"):
        _import(output_root, str(path), world, pairs)
    path.write_text(f"{HEADER}\n")
    with pytest.raises(DataError, match="no comparison counts"):
        _import(output_root, str(path), world)
    with pytest.raises(DataError, match="holds no events"):
        _import(output_root, str(tmp_path), world)


def test_answers_about_other_pairs_of_the_same_names_are_refused(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    asked = {"num_pairs": 6, "repeat_fraction": 0}
    shown, other = (
        execute("propose_pairs", {**asked, "seed": seed}, {"clips": world.clips.uri}, output_root) for seed in (0, 1)
    )
    labels = storage.normalize(str(tmp_path / "labels"))
    first = schema.read_parquet(shown.file("pairs.parquet")).to_pylist()[0]
    said = [review_events.event(op, value, item=f"pair:{first['pair_id']}") for op, value in SAID_A]
    review_events.store(labels, *said)
    storage.write_bytes(storage.join(labels, "pairs.csv"), storage.read_bytes(shown.file("pairs.csv")))
    assert _import(output_root, labels, world, shown).counts["annotations"] == 1
    sides = f"{first['clip_a_id']} and {first['clip_b_id']}"
    with pytest.raises(DataError, match=f"pair {first['pair_id']} was shown as {sides}, and is"):
        _import(output_root, labels, world, other)


def test_an_annotator_who_contradicts_himself_is_left_out(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    lines = [HEADER]
    for number in range(5):
        a, b = world.clip_id[number], world.clip_id[number + 5]
        for who, second in (("coin", "A"), ("steady", "B")):
            lines += [f"{number},{a},{b},A,,{who}", f"r{number},{b},{a},{second},,{who}"]
    path = tmp_path / "said.csv"
    path.write_text("\n".join(lines))
    made = _import(output_root, str(path), world, min_annotator_consistency=0.6)
    assert made.counts["annotators"] == 1
    assert made.counts["left_out"] == 10
    found = storage.read_json(made.file("agreement.json"))
    people = {person["name"]: person for person in found["annotators"]}
    assert (people["coin"]["counted"], people["coin"]["repeat_consistency"]) == (False, 0.0)
    assert (people["steady"]["counted"], people["steady"]["accuracy_ceiling"]) == (True, 1.0)


def test_events_of_the_page_become_preferences(output_root: str, tmp_path: Path) -> None:
    world = clip_sets.make_world(output_root, num_participants=2, clips=4)
    pairs = execute("propose_pairs", {"num_pairs": 6, "repeat_fraction": 0}, {"clips": world.clips.uri}, output_root)
    ids = schema.read_parquet(pairs.file("pairs.parquet")).column("pair_id").to_pylist()
    labels = storage.normalize(str(tmp_path / "labels"))

    def say(item: str, op: str, value: object = None, **given: object) -> object:
        return review_events.event(op, value, item=f"pair:{item}", **given)

    changed = say(ids[1], "prefer", "A")
    events = [
        say(ids[0], "prefer", "A", at_ms=1_000),
        say(ids[0], "complete"),
        changed,
        say(ids[1], "undo", changed.ulid),
        say(ids[1], "prefer", "tie", at_ms=90_061_001),
        say(ids[1], "complete"),
        say(ids[2], "prefer", "B"),  # never completed
        say(ids[3], "skip", "black picture"),
        say(ids[0], "prefer", "B", annotator="bob", at_ms=2_000),
        say(ids[0], "complete", annotator="bob"),
    ]
    review_events.store(labels, *events)
    made = _import(output_root, labels, world, pairs)
    table = schema.read_parquet(made.file("preferences.parquet")).to_pylist()
    assert [(row["pair_id"], row["annotator_id"], row["preference"], row["timestamp"]) for row in table] == [
        (ids[0], "alice", "A", "1970-01-01T00:00:01.000+00:00"),
        (ids[0], "bob", "B", "1970-01-01T00:00:02.000+00:00"),
        (ids[1], "alice", "tie", "1970-01-02T01:01:01.001+00:00"),
    ]
    found = storage.read_json(made.file("agreement.json"))
    assert found["skipped"] == [{"annotator": "alice", "pair_id": ids[3], "reason": "black picture"}]
    assert _import(output_root, labels, world, pairs).uri == made.uri
    with pytest.raises(UsageError, match="needs the input pairs"):
        _import(output_root, labels, world)
    review_events.store(
        labels, say("stray", "prefer", "A", annotator="cleo"), say("stray", "complete", annotator="cleo")
    )
    with pytest.raises(DataError, match="cleo compared pair stray, which was not proposed"):
        _import(output_root, labels, world, pairs)

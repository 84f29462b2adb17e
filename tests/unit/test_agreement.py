from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.annotators.agreement import Coincidences, krippendorff_alpha
from robolift.errors import UsageError

X = np.nan
# Four observers, twelve units, values missing: section C of Krippendorff's "Computing Alpha-Reliability".
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
    [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(level, alpha):
    assert krippendorff_alpha(EXAMPLE, level=level) == pytest.approx(alpha, abs=5e-4)


def test_two_units_by_hand():
    # Units (0, 0) and (0, 1): coincidences o00 = 2, o01 = o10 = 1; margins 3 and 1.
    # D_o = 2, D_e = 2 * 3 * 1 / 3 = 2: alpha = 0.
    assert krippendorff_alpha([[0, 0], [0, 1]], level="nominal") == 0.0
    # A third, (1, 1): margins 3 and 3, D_o = 2, D_e = 18 / 5: alpha = 1 - 10/18.
    assert krippendorff_alpha([[0, 0, 1], [0, 1, 1]], level="nominal") == pytest.approx(4 / 9)


def test_perfect_agreement_is_one_and_undefined_is_none():
    assert krippendorff_alpha([[0, 1, 2], [0, 1, 2]], level="ordinal") == 1.0
    assert krippendorff_alpha([[1, 1], [1, 1]], level="nominal") is None
    assert krippendorff_alpha([[1, X], [X, 2]], level="nominal") is None
    assert krippendorff_alpha(np.empty((2, 0)), level="nominal") is None


def test_a_list_of_values_is_refused():
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        krippendorff_alpha([1, 2], level="nominal")


tables = st.integers(2, 4).flatmap(
    lambda people: st.lists(
        st.lists(st.sampled_from([X, -1.0, 0.0, 1.0, 5.0]), min_size=people, max_size=people), min_size=2, max_size=12
    ).map(lambda units: np.array(units).T)
)


@given(tables, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_it_is_what_the_krippendorff_package_gives(table, level):
    mine = krippendorff_alpha(table, level=level)
    if mine is None:
        return
    theirs = krippendorff.alpha(reliability_data=table, level_of_measurement=level)
    assert mine == pytest.approx(theirs, abs=1e-9)


@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_people_and_units_does_not_matter(table, rng):
    people, units = list(range(table.shape[0])), list(range(table.shape[1]))
    rng.shuffle(people)
    rng.shuffle(units)
    before = krippendorff_alpha(table, level="ordinal")
    after = krippendorff_alpha(table[people][:, units], level="ordinal")
    assert after == (None if before is None else pytest.approx(before))


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0, X]), min_size=3, max_size=3), min_size=1, max_size=12),
    st.integers(0, 12),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_units_may_be_added_in_parts(units, cut, level):
    table, found = np.array(units).T, Coincidences()
    for part in (table[:, :cut], table[:, cut:]):
        found.add(part)
    whole = krippendorff_alpha(table, level=level)
    assert found.alpha(level=level) == (None if whole is None else pytest.approx(whole))


def test_parts_may_be_of_other_people():
    # The third unit of the table by hand, above, is of two others.
    found = Coincidences()
    found.add([[0, 0], [0, 1]])
    found.add([[1], [X], [1]])
    assert found.alpha(level="nominal") == pytest.approx(4 / 9)

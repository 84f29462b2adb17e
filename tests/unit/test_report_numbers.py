from __future__ import annotations

import pytest

from robolift.reports.intervals import Interval
from robolift.reports.numbers import count, decimal, interval_per_cent, interval_points, per_cent, points


@pytest.mark.parametrize(("value", "text"), [(0.821, "82\u202f%"), (0.0, "0\u202f%"), (1.0, "100\u202f%"), (None, "–")])
def test_shares(value, text):
    assert per_cent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.678, "+68"), (-0.021, "\u22122"), (0.001, "0"), (-0.004, "0")])
def test_differences_are_signed(value, text):
    assert points(value) == text


def test_intervals():
    found = Interval(estimate=0.1, low=-0.05, high=0.25)
    assert interval_points(found) == "\u22125 to +25"
    assert interval_per_cent(Interval(estimate=0.8, low=0.726, high=0.884)) == "73 to 88\u202f%"


def test_counts_and_decimals():
    assert count(11750) == "11\u202f750"
    assert count(7) == "7"
    assert decimal(-0.5) == "\u22120.50"
    assert decimal(1.2345, 4) == "1.2345"
    assert decimal(None) == "–"

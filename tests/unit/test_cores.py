"""The number of cores a process has: those it may run on, within what its container is limited to."""

from __future__ import annotations

import os

import pytest

from robolift.data.cores import num_cores

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.fixture
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def lay(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "25000 50000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 16),
        ({V1[0]: "800000\n", V1[1]: "100000\n"}, 8),
        ({V1[0]: "-1\n", V1[1]: "100000\n"}, 16),
        ({V1[0]: "150000\n"}, 16),
        ({}, 16),
    ],
)
def test_a_limit_counts_where_it_is_less_than_the_cores(tmp_path, sixteen, files, cores):
    assert num_cores(lay(tmp_path, files)) == cores


def test_a_process_that_may_run_on_few_cores_has_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})
    assert num_cores(lay(tmp_path, {"cpu.max": "400000 100000\n"})) == 2


def test_there_is_a_core_here():
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))

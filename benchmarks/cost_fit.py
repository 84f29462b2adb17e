"""From runs to costs: which counts a stage's costs are made of, and their coefficients by least squares."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.cost_chain import Taken
from robolift.planner.costs import Counts, Form, evaluate

DECODED = ("clip", "picture", *(f"{what}_{codec}" for what in ("pixel", "root", "byte") for codec in ("h264", "av1")))
"""What decoding is made of, measured by itself."""
DECODING = ("pack_frames",)
"""The stage that decodes each picture once."""
SHOWN = ("train_value", "predict_values")
"""Those that look at packed pictures."""
CPU: dict[str, tuple[str, ...]] = {
    "import_dataset": ("start", "frame", "episode", "data_file", "video_file"),
    "label_returns": ("start", "frame", "episode"),
    "pack_frames": ("start", "picture"),
    "train_value": ("start", "row", "picture"),
    "predict_values": ("start", "picture"),
    "merge_values": ("start", "frame", "shard"),
    "label_advantage": ("start", "frame", "episode"),
    "compute_norm_stats": ("start", "frame", "episode", "data_file"),
    "export_dataset": ("start", "frame", "episode", "data_file", "video_file", "video_byte"),
    "train_policy": ("start", "frame", "row"),
    "write_report": ("start", "frame", "episode"),
}
MEMORY = {
    **dict.fromkeys(CPU, ("start", "frame")),
    **dict.fromkeys((*DECODING, *SHOWN), ("start",)),
    "export_dataset": ("start", "episode"),
}
WRITTEN = {
    **dict.fromkeys(CPU, ("start", "frame", "episode")),
    "import_dataset": ("start", "frame", "episode", "data_file", "video_file"),
    "export_dataset": ("start", "frame", "episode", "video_byte"),
    **dict.fromkeys(("pack_frames", "predict_values"), ("start", "frame", "picture")),
    **dict.fromkeys(("train_value", "train_policy", "compute_norm_stats"), ("start",)),
}
REQUESTS = ("start", "episode", "data_file", "video_file", "clip", "shard", "page")
READ = {
    **dict.fromkeys(CPU, ("start", "frame", "data_byte", "window_byte")),
    **dict.fromkeys(SHOWN, ("start", "frame", "data_byte", "packed_byte")),
}
BY_SHARE = ("import_dataset",)
"""Of these the relative error of written bytes counts: they are few, and no matter of frames alone."""
ON_TABLES = ("label_returns", "merge_values", "label_advantage", "write_report")
"""They read tables alone, and are fitted to tables alone: among recordings they start up to a tenth later, which is no
slope. The absolute error counts: the start of a process is as noisy with a hundred times the frames."""
DIGITS = 4
FLAT = 0.05
"""Share of a stage's memory up to which what grows with the recording is noise, and not to be extrapolated."""


def coefficients(terms: Sequence[str], runs: Sequence[tuple[Counts, float]], *, exact: bool = False) -> Form:
    """Return the coefficients, none negative, that explain numbers by counts with the least relative square error.

    Args:
        terms: What may explain them; what no run had any of is left out.
        runs: Counts and the number that was measured.
        exact: Whether the absolute error counts, not the relative one: requests are whole numbers.
    """
    used = [term for term in terms if any(counts.get(term) for counts, _ in runs)]
    counted = np.array([[counts.get(term, 0.0) for term in used] for counts, _ in runs])
    numbers = np.array([number for _, number in runs])
    weights = np.ones(len(runs)) if exact else 1 / np.maximum(numbers, 1e-9)
    scale = counted.max(axis=0)
    # Terms that would count negative are left out one by one, the most negative first.
    while used:
        found, *_ = np.linalg.lstsq(counted / scale * weights[:, None], numbers * weights, rcond=None)
        if found.min() >= -1e-9:
            break
        worst = int(found.argmin())
        used.pop(worst)
        counted, scale = np.delete(counted, worst, axis=1), np.delete(scale, worst)
    made = zip(used, (found / scale).tolist(), strict=True) if used else ()
    return {term: _rounded(value) for term, value in made if value * scale[used.index(term)] > 1e-6}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def medians(taken: Sequence[Taken]) -> dict[str, list[tuple[Counts, dict[str, float]]]]:
    """Return for each stage its runs of equal counts as one, with the median of each number."""
    same: dict[tuple[str, tuple[tuple[str, float], ...]], list[Taken]] = defaultdict(list)
    for one in taken:
        same[one.stage, tuple(sorted(one.counts.items()))].append(one)
    found: dict[str, list[tuple[Counts, dict[str, float]]]] = defaultdict(list)
    for (stage, counts), runs in same.items():
        numbers = {
            "cpu_s": statistics.median(one.run.cpu_s for one in runs),
            "memory_bytes": statistics.median(one.run.peak_bytes for one in runs),
            "written_bytes": runs[0].written_bytes,
        }
        found[stage].append((dict(counts), numbers))
    return found


def seconds(taken: Sequence[Taken], stage: str) -> list[tuple[Counts, float]]:
    """Return counts and CPU seconds of the runs of one stage."""
    return [(counts, numbers["cpu_s"]) for counts, numbers in medians(taken)[stage]]


def fit(taken: Sequence[Taken], decoding: Form) -> dict[str, dict[str, Form]]:
    """Return the forms of each stage but its requests.

    What a stage that decodes takes besides is fitted to the rest of its time, and ``decoding`` added to it.
    """
    found: dict[str, dict[str, Form]] = {}
    for stage, runs in sorted(medians([one for one in taken if one.stage in CPU]).items()):
        known = decoding if stage in DECODING else {}
        alike = [(counts, numbers) for counts, numbers in runs if stage not in ON_TABLES or not counts.get("data_file")]
        rest = [(counts, max(0.0, numbers["cpu_s"] - evaluate(known, counts))) for counts, numbers in alike]
        own = coefficients(CPU[stage], rest, exact=stage in ON_TABLES)
        forms = {
            "memory_bytes": _held(MEMORY[stage], [(counts, numbers["memory_bytes"]) for counts, numbers in runs]),
            # What compresses better in a small table is no matter; of a large one a tenth is gigabytes.
            "written_bytes": coefficients(
                WRITTEN[stage],
                [(counts, numbers["written_bytes"]) for counts, numbers in runs],
                exact=stage not in BY_SHARE,
            ),
        }
        names = dict.fromkeys([*own, *known])
        found[stage] = {"cpu_s": {n: _rounded(own.get(n, 0.0) + known.get(n, 0.0)) for n in names}, **forms}
    return found


def _held(terms: Sequence[str], runs: Sequence[tuple[Counts, float]]) -> Form:
    """Return what a stage holds: what it starts with alone, if the rest is within the noise of the largest run."""
    form = coefficients(terms, runs)
    least = {name: value for name, value in form.items() if name == "start"}
    if all(evaluate(form, counts) - evaluate(least, counts) <= FLAT * number for counts, number in runs):
        return coefficients(("start",), runs)
    return form


def slope(axis: Sequence[float], numbers: Sequence[float]) -> float:
    """Return the slope of the line of least squares."""
    return float(np.polyfit(np.asarray(axis), np.asarray(numbers), 1)[0])

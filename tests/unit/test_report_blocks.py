"""What a report reads of the tables: the same whatever the blocks, without the tables as a whole in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from labelled import label, make_targets, noisy_values, publish_dataset, publish_values

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.reports import frames
from robolift.reports.frames import load_frames

LENGTHS = [5, 3, 7]


def cut_into(monkeypatch, rows):
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", rows)


def made_of(root, lengths, **config):
    dataset = publish_dataset(root, lengths, outcome=[("success", "failure")[i % 2] for i in range(len(lengths))])
    targets = make_targets(root, dataset)
    values = publish_values(root, dataset, noisy_values(dataset, targets, noise=0.1))
    labels = label(root, dataset, targets=targets, values=values, **config)
    return dataset, {"targets": targets, "values": values, "labels": labels}


@pytest.mark.parametrize("rows", [1, 4, 5, 15, 100])
def test_columns_are_those_of_the_tables_whatever_the_blocks(output_root, monkeypatch, rows):
    dataset, made = made_of(output_root, LENGTHS, lookahead=2, scheme="slices", num_slices=3)
    cut_into(monkeypatch, rows)
    found = load_frames(Dataset.open(dataset), **made)
    whole = {name: table.table(name).to_pydict() for name, table in made.items()}
    labels = whole["labels"]
    assert found.value_target.tolist() == whole["targets"]["value_target"]
    assert (found.value.tolist(), found.value_std.tolist()) == (whole["values"]["value"], whole["values"]["value_std"])
    np.testing.assert_array_equal(found.advantage, np.array(labels["advantage"], np.float64))
    assert found.valid.tolist() == labels["valid"]
    assert [schema.ADVANTAGE_LABELS[code] for code in found.label] == labels["advantage_label"]
    assert [schema.LABEL_REASONS[code] for code in found.reason] == labels["reason"]
    assert found.slice_index.tolist() == [-1 if number is None else number for number in labels["slice"]]
    assert [schema.CONTROL_MODES[code] for code in found.control_mode] == ["autonomous"] * 15
    assert (found.value.dtype, found.valid.dtype, found.label.dtype) == (np.float64, np.bool_, np.int8)


@pytest.mark.parametrize(("lengths", "num"), [([5, 3], 8), ([5, 3, 8], 16), ([5, 4, 6], 15)])
@pytest.mark.parametrize("rows", [4, 5, 100])
def test_a_table_of_other_frames_is_refused(output_root, monkeypatch, lengths, num, rows):
    dataset, made = made_of(output_root, LENGTHS)
    other = publish_dataset(output_root, lengths)
    values = publish_values(output_root, other, range(num))
    cut_into(monkeypatch, rows)
    with pytest.raises(DataError, match=f"its {num} frames are not the dataset's 15 frames") as caught:
        load_frames(Dataset.open(dataset), **{**made, "values": values})
    first = "episode 2, frame 7" if num == 16 else "episode 2, frame 0"
    assert f"values.parquet, first difference at {first}" in str(caught.value)


def test_eight_times_the_frames_take_no_more_of_arrows_memory(output_root, monkeypatch):
    cut_into(monkeypatch, 1000)
    held = []

    def read(*arguments):
        rows = read_frames(*arguments)
        held.append(pa.total_allocated_bytes() - before)
        return rows

    read_frames = frames.read_frames
    monkeypatch.setattr(frames, "read_frames", read)
    peaks = []
    for episodes in (2, 16):
        given, made = made_of(output_root, [1000] * (episodes - 1) + [999])
        dataset = Dataset.open(given)
        held.clear()
        before = pa.total_allocated_bytes()
        load_frames(dataset, **made)
        assert len(held) == 3 * episodes
        peaks.append(max(held))
    assert peaks[0] > 30_000  # a block of labels: it was measured
    assert peaks[1] < 1.2 * peaks[0]

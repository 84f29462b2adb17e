"""What the export refuses, and that it says what and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from exported_dataset import (
    learn_from,
    learned,
    publish,
    record_both,
    run_export,
)
from synthetic import TASK

from robolift import storage
from robolift.__main__ import main
from robolift.data.export_rows import Rows
from robolift.errors import DataError, UsageError
from robolift.schema import Kind
from robolift.stages.stage import execute


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """The same eight episodes in both versions."""
    return record_both(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def wired(recordings, tmp_path_factory) -> dict[str, dict[str, str]]:
    """All inputs of an export, by version of the source."""
    return learn_from(recordings, tmp_path_factory.mktemp("learned"))


@pytest.mark.parametrize(
    ("columns", "without", "message"),
    [
        ("pistar", ("targets",), "pistar needs the input targets"),
        ("pistar", ("targets", "labels"), "pistar needs the input targets and labels"),
        ("kai0", ("labels",), "kai0 needs the input labels"),
        ("weights", ("labels",), "weights needs the input labels"),
        ("next_reward", ("targets",), "next_reward needs the input targets"),
        ("values", ("values",), "values needs the input values"),
    ],
)
def test_columns_need_their_input(columns, without, message, wired, output_root, capsys):
    inputs = {name: uri for name, uri in wired["v3.0"].items() if name not in without}
    arguments = [f"inputs.{name}={uri}" for name, uri in inputs.items()]
    arguments += [f"output_root={output_root}", f"columns=[{columns}]"]
    assert main(["export_dataset", *(part for item in arguments for part in ("--set", item))]) == 64
    assert message in capsys.readouterr().err


def test_no_columns_is_no_export(wired, output_root):
    with pytest.raises(UsageError, match=r"export_dataset\.columns"):
        run_export(wired["v3.0"], output_root, columns=[])


def test_labels_of_another_dataset_are_refused(wired, output_root, capsys):
    inputs = {**wired["v3.0"], "labels": wired["v2.1"]["labels"]}
    arguments = [f"output_root={output_root}", *(f"inputs.{name}={uri}" for name, uri in inputs.items())]
    assert main(["export_dataset", *(part for item in arguments for part in ("--set", item))]) == 65
    message = capsys.readouterr().err
    assert "table labels (123 rows) was made from another dataset" in message
    assert "give the labels that were made from this dataset" in message


def test_labels_of_other_frames_are_refused(dataset, tmp_path, output_root):
    synthetic.write_recording(tmp_path / "other", episodes=2, cameras=[])
    other = execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {}, output_root)
    frames = other.table("frames")
    keys = {name: frames.column(name).to_numpy() for name in ("episode_index", "frame_index")}
    rows = np.zeros(frames.num_rows)
    targets = publish(
        output_root, "label_returns", Kind.TARGETS, dataset, {"targets": {**keys, "value_target": rows, "reward": rows}}
    )
    with pytest.raises(DataError, match="its 22 frames are not the dataset's 123 frames"):
        run_export({"dataset": dataset.uri, "targets": targets.uri}, output_root, columns=["next_reward"])


def test_pistar_knows_no_unknown_outcome(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=2, cameras=[], extra=False)
    config = {"dataset_uri": str(tmp_path / "r"), "allow_unknown_outcome": True}
    inputs = learned(str(tmp_path), execute("import_dataset", config, {}, str(tmp_path)))
    with pytest.raises(DataError, match="1 episodes have an unknown outcome\n  where: first episode 1"):
        run_export(inputs, output_root)
    assert run_export(inputs, output_root, columns=["weights"]).counts["episodes"] == 2


def test_a_prompt_that_is_not_in_the_table_is_refused(dataset, tmp_path, output_root):
    inputs = learned(str(tmp_path), dataset)
    path = storage.local_path(inputs["labels"]) / "prompts.json"
    path.write_text(json.dumps({"prompts": [TASK]}))
    with pytest.raises(DataError, match=r"prompt_index 2 is outside the prompt table\n.*\n  expected: 0 to 0"):
        run_export(inputs, output_root, columns=["kai0"])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_rows_that_changed_after_the_import_are_refused(version, recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings[version], tmp_path / "recording"))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    file = sorted((path / "data/chunk-000").iterdir())[-1]
    pq.write_table(pq.read_table(file), file, compression="zstd")
    with pytest.raises(DataError, match=f"changed or lost after the dataset was imported\n  where: .*{file.name}"):
        run_export(inputs, output_root)


def test_files_in_another_order_than_their_names_are_refused(recordings, tmp_path, output_root):
    path = Path(shutil.copytree(recordings["v2.1"], tmp_path / "recording"))
    files = [path / f"data/chunk-000/episode_00000{episode}.parquet" for episode in (4, 5)]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, reversed(contents), strict=True):
        file.write_bytes(content)
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(tmp_path)))
    with pytest.raises(DataError, match="rows of episode 5 are incomplete or out of order"):
        run_export(inputs, output_root)


def test_types_that_do_not_agree_are_refused():
    rows = Rows({"index": pa.int64()}, (), ("action", "index"), "v2.1")
    rows.table(pa.table({"action": [0.5], "index": [0]}), {"index": pa.array([0])}, where="episode 0")
    with pytest.raises(DataError, match="column action is string, double in the first source"):
        rows.table(pa.table({"action": ["x"], "index": [0]}), {"index": pa.array([1])}, where="episode 1")


def test_meta_keys_of_different_types_are_refused(tmp_path, output_root):
    synthetic.write_recording(tmp_path / "r", episodes=2, cameras=[], version="v2.1")
    synthetic.change_episodes(tmp_path / "r", lambda row: row.update(note="x" if row["episode_index"] else 1))
    inputs = learned(str(tmp_path), execute("import_dataset", {"dataset_uri": str(tmp_path / "r")}, {}, str(tmp_path)))
    with pytest.raises(DataError, match="hold values of different types under 'note'"):
        run_export(inputs, output_root, version="v3.0")
    assert run_export(inputs, output_root, version="v2.1").counts["episodes"] == 2

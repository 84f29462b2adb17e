"""A file with some columns written anew is what Arrow would write, and the other columns keep their bytes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_dataset import PISTAR, folder, learned, record_both, run_export

from robolift.data.parquet_splice import Splicer
from robolift.stages.stage import execute

ROWS = 300
ENCODINGS = [
    {"compression": "none"},
    {"compression": "snappy"},
    {"compression": "gzip"},
    {"compression": "brotli"},
    {"compression": "lz4"},
    {"compression": "zstd", "compression_level": 9},
    {"use_dictionary": False},
    {"use_dictionary": ["mode"], "column_encoding": {"timestamp": "BYTE_STREAM_SPLIT"}},
    {"write_statistics": False},
    {"write_statistics": ["timestamp"]},
    {"write_page_index": True},
    {"write_page_checksum": True},
    {"data_page_version": "2.0"},
    {"data_page_size": 512},
    {"store_schema": False},
    {"version": "2.4"},
    {"version": "1.0"},
]


def table(rows: int = ROWS, episode: int = 7) -> pa.Table:
    """Columns of every shape that the format has."""
    rng = np.random.default_rng(0)
    flat = pa.array(rng.normal(size=rows * 3).astype(np.float32))
    columns = {
        "state": pa.FixedSizeListArray.from_arrays(flat, 3),
        "task_index": pa.array(np.zeros(rows, np.int64)),
        "ragged": pa.array([[float(n)] * (n % 3) for n in range(rows)]),
        "pose": pa.array([{"at": n, "names": [str(n)], "inner": {"flag": n % 2 == 0}} for n in range(rows)]),
        "mode": pa.array([None if n % 5 == 0 else f"mode {n % 3}" for n in range(rows)]),
        "flag": pa.array(rng.random(rows) < 0.5),
        "episode_index": pa.array(np.full(rows, episode)),
        "timestamp": pa.array((np.arange(rows) / 30).astype(np.float32)),
    }
    return pa.table(columns).replace_schema_metadata({"huggingface": "{}", "station": "kitchen"})


def stored(rows: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, **options)
    return bytes(sink.getvalue())


def opened(content: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(content))


def chunks(content: bytes) -> dict[str, tuple[bytes, dict]]:
    """Return the bytes of each column chunk and what the footer says of it, but for where it lies."""
    found = {}
    group = opened(content).metadata.row_group(0)
    for number in range(group.num_columns):
        facts = group.column(number).to_dict()
        start = facts.pop("dictionary_page_offset") or facts["data_page_offset"]
        facts.pop("data_page_offset")
        for name in ("has_offset_index", "has_column_index", "geo_statistics"):
            facts.pop(name, None)
        end = start + facts["total_compressed_size"]
        found[facts["path_in_schema"]] = (content[start:end], facts)
    return found


def spliced(content: bytes, schema: pa.Schema, fresh: dict[str, pa.Array]) -> bytes | None:
    splicer = Splicer(schema)
    plain = splicer.open(content)
    return plain and splicer.splice(plain, fresh)


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_one_column_changes_and_the_others_keep_their_bytes(options):
    before = table()
    labels = pa.array(np.arange(ROWS) % 2)
    content = stored(before, **options)
    made = spliced(content, before.schema, {"task_index": labels})

    expected = before.set_column(1, "task_index", labels)
    with opened(made) as file:
        after = file.read()
        assert after.equals(expected)
        assert after.schema.equals(opened(stored(expected)).schema_arrow, check_metadata=True)
        ordinary = opened(stored(expected)).metadata
        assert file.metadata.schema.equals(ordinary.schema)
        assert file.metadata.metadata == ordinary.metadata
        assert (file.metadata.num_rows, file.metadata.row_group(0).num_rows) == (ROWS, ROWS)
        assert (file.metadata.created_by, file.metadata.format_version) == (ordinary.created_by, "2.6")
    old, new = chunks(content), chunks(made)
    assert list(new) == list(old)
    assert [name for name in new if new[name][0] != old[name][0]] == ["task_index"]
    for name in set(new) - {"task_index"}:
        assert new[name][1] == old[name][1], name
    assert new["task_index"] == chunks(stored(expected, compression="snappy"))["task_index"]


def test_columns_are_added_replaced_by_another_type_and_left_out():
    before = table()
    schema = pa.schema(
        [before.schema.field("mode"), pa.field("task_index", pa.string()), before.schema.field("state")],
        metadata={"huggingface": '{"new": 1}'},
    ).append(pa.field("value", pa.float64()))
    fresh = {"task_index": pa.array(["x"] * ROWS), "value": pa.array(np.arange(ROWS) / 7)}
    made = spliced(stored(before), schema, fresh)
    with opened(made) as file:
        assert file.schema_arrow.equals(opened(stored(schema.empty_table())).schema_arrow, check_metadata=True)
        assert file.read().equals(
            pa.table([before["mode"], fresh["task_index"], before["state"], fresh["value"]], schema=schema)
        )
        assert [file.read([name]).column(0) for name in ("value", "state")] == [
            pa.chunked_array([fresh["value"]]),
            before["state"],
        ]


def test_a_spliced_file_is_spliced_again_and_has_nothing_left_over():
    before = table()
    fresh = {"task_index": pa.array(np.arange(ROWS))}
    once = spliced(stored(before), before.schema, fresh)
    assert spliced(once, before.schema, fresh) == once
    assert len(spliced(once, before.schema, {"task_index": before["task_index"].chunk(0)})) < len(once)
    sizes = sum(len(chunk) for chunk, _ in chunks(once).values())
    footer = int.from_bytes(once[-8:-4], "little")
    assert len(once) == 4 + sizes + footer + 8


@pytest.mark.parametrize(
    ("change", "only"),
    [({}, 7), ({"write_statistics": False}, None), ({"write_statistics": ["timestamp"]}, None)],
    ids=str,
)
def test_the_one_episode_of_a_file_is_known_by_its_statistics(change, only):
    assert Splicer(table().schema).open(stored(table(), **change)).only("episode_index") == only


def test_of_two_episodes_none_is_the_only_one():
    plain = Splicer(table().schema).open(stored(pa.concat_tables([table(), table(episode=8)])))
    assert plain.only("episode_index") is None
    assert plain.rows == 2 * ROWS


def twice() -> pa.Table:
    return table().append_column("flag", table()["flag"])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(stored(table(), row_group_size=100), id="several row groups"),
        pytest.param(b"", id="empty"),
        pytest.param(b"PAR1" * 3, id="no footer"),
        pytest.param(stored(table())[:-9], id="cut short"),
        pytest.param(stored(table(), sorting_columns=[pq.SortingColumn(7)]), id="sorted"),
        pytest.param(stored(table()).replace(b"parquet-cpp-arrow", b"parquet-rs--arrow"), id="another writer"),
        pytest.param(stored(twice()), id="two columns of one name"),
        pytest.param(stored(table()).replace(b"PAR1", b"PARE"), id="encrypted"),
    ],
)
def test_other_files_are_for_arrow(content):
    assert Splicer(table().schema).open(content) is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(stored(table(), use_compliant_nested_type=False), id="items of another name"),
        pytest.param(stored(table().drop(["flag"])), id="column missing"),
        pytest.param(
            stored(table().cast(pa.schema([field.with_nullable(field.name != "flag") for field in table().schema]))),
            id="no nulls allowed",
        ),
    ],
)
def test_columns_that_are_declared_otherwise_are_for_arrow(content):
    assert spliced(content, table().schema, {"task_index": table()["task_index"].chunk(0)}) is None


def test_a_broken_footer_is_for_arrow():
    content = stored(table(20))
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    splicer, rng = Splicer(table().schema), random.Random(0)
    refused = 0
    for _ in range(400):
        broken = bytearray(content)
        for _ in range(3):
            broken[rng.randrange(start, len(content) - 8)] = rng.randrange(256)
        refused += splicer.open(bytes(broken)) is None
    assert refused > 100


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """The same eight episodes in both versions."""
    return record_both(tmp_path_factory.mktemp("recordings"))


def exported(path: Path, root: Path, **config) -> Path:
    dataset = execute("import_dataset", {"dataset_uri": str(path)}, {}, str(root / "made"))
    return folder(run_export(learned(str(root / "made"), dataset), str(root / "out"), **config))


@pytest.mark.parametrize("columns", [["kai0"], ["pistar", "values"]])
def rewritten(path: Path, other: Path, **options) -> Path:
    shutil.copytree(path, other)
    for file in (other / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(file), file, **options)
    return other


@pytest.mark.parametrize("columns", [["kai0"], ["pistar", "values"]])
def test_an_export_is_the_same_whether_files_are_spliced_or_read(columns, recordings, tmp_path):
    packed = rewritten(recordings["v2.1"], tmp_path / "packed", compression="zstd")
    plain = rewritten(recordings["v2.1"], tmp_path / "plain", row_group_size=2)
    first, again = (exported(packed, tmp_path / name, columns=columns) for name in "ab")
    other = exported(plain, tmp_path / "c", columns=columns)
    names = sorted(str(file.relative_to(first)) for file in first.rglob("*") if file.is_file())
    assert names == sorted(str(file.relative_to(other)) for file in other.rglob("*") if file.is_file())
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
        if name.endswith(".parquet"):
            mine, its = pq.read_table(first / name), pq.read_table(other / name)
            assert mine.equals(its)
            assert mine.schema.equals(its.schema, check_metadata=True)
            source, kept = chunks((packed / name).read_bytes()), chunks((first / name).read_bytes())
            assert all(kept[column] == source[column] for column in set(source) - {"task_index", *PISTAR})
            assert all(facts["compression"] == "SNAPPY" for _, facts in chunks((other / name).read_bytes()).values())
        else:
            assert (first / name).read_bytes() == (other / name).read_bytes(), name

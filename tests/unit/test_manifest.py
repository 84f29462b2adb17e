"""What a manifest says, how it is found and read back, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from published_targets import make_output, make_plan

from robolift import manifest as manifests
from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.json_numbers import finite
from robolift.manifest import Output
from robolift.schema import Kind


def test_a_copied_output_speaks_for_the_files_beside_it(tmp_path):
    found = make_output(make_plan(tmp_path / "root"))
    copy = tmp_path / "laptop" / "targets"
    shutil.copytree(storage.local_path(found.uri), copy)
    shutil.rmtree(tmp_path / "root")

    moved = manifests.load(str(copy))

    assert moved == replace(found, uri=f"file://{copy}")
    assert moved.table("targets").num_rows == 2
    assert manifests.load(str(copy / "manifest.json")) == moved


def test_an_artifact_file_leads_to_the_output(tmp_path):
    found = make_output(make_plan(tmp_path / "root"))
    artifact = tmp_path / "targets"
    artifact.write_bytes(found.to_bytes())

    assert manifests.load(str(artifact)) == found


def test_a_manifest_of_sixty_four_shards_fits_and_gives_them_back(tmp_path):
    shards = [make_output(make_plan("memory://shards", digest=f"{i:016x}")) for i in range(64)]
    plan = make_plan(tmp_path, inputs={"shards": shards, "dataset": shards[:1]})

    found = make_output(plan)

    assert len(storage.read_bytes(found.file("manifest.json"))) < 4096
    assert [p.digest for p in found.inputs["shards"]] == [f"{i:016x}" for i in range(64)]
    assert found.parents("shards") == shards
    assert found.parent("dataset") == shards[0]
    storage.remove("memory://shards")


def test_parents_in_several_places_keep_their_order(tmp_path):
    first = make_output(make_plan(tmp_path / "one", digest="a" * 16))
    second = make_output(make_plan(tmp_path / "two", digest="b" * 16))
    third = make_output(make_plan(tmp_path / "two", digest="c" * 16))
    named = replace(first, uri=f"file://{tmp_path}/copied-by-hand")
    order = [third, first, second, third, named, first]

    found = make_output(make_plan(tmp_path / "out", inputs={"values": order}))

    assert [(p.uri, p.digest) for p in found.inputs["values"]] == [(m.uri, m.digest) for m in order]


def test_a_manifest_over_four_kilobytes_is_refused_before_the_work(tmp_path):
    plan = make_plan(tmp_path, config={"note": "x" * 4000})
    with pytest.raises(UsageError, match=r"manifest of label_returns would be over 4096 bytes|is \d+ bytes"):
        plan.check_size()
    make_plan(tmp_path, config={"note": "x" * 3000}).check_size()
    with pytest.raises(UsageError, match="would be over 4096 bytes: its config takes 3"):
        make_plan(tmp_path, config={"note": "x" * 3400}).check_size()


def test_counts_that_do_not_fit_are_refused(tmp_path):
    output = Output(make_plan(tmp_path))
    with pytest.raises(UsageError, match="at most 4096 may travel"):
        output.publish({f"count_{i}": i for i in range(300)})
    output.discard()
    assert list((tmp_path / "label_returns").iterdir()) == []


def test_the_parent_of_an_input_given_several_times_is_ambiguous(tmp_path):
    one = make_output(make_plan(tmp_path, digest="a" * 16))
    found = make_output(make_plan(tmp_path, inputs={"values": [one, one]}))
    with pytest.raises(UsageError, match="has 2 inputs 'values', expected one"):
        found.parent("values")
    with pytest.raises(UsageError, match="has 0 inputs 'dataset', expected one"):
        found.parent("dataset")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": {}}',
        b'{"inputs": {"a": [{"uri": 1}]}}',
        b'{"inputs": 3}',
        b'{"a": 1, "inputs": {}}',
    ],
)
def test_what_is_no_manifest_is_a_data_error(content):
    with pytest.raises(DataError, match="not a manifest") as caught:
        manifests.parse(content, where="artifact")
    assert caught.value.where == "artifact"


def test_another_major_schema_version_is_refused_and_a_minor_one_read(tmp_path):
    document = json.loads(make_output(make_plan(tmp_path)).to_bytes())
    with pytest.raises(DataError, match=r"schema version 2\.0"):
        manifests.parse(json.dumps({**document, "schema_version": "2.0"}).encode(), where="x")
    assert (
        manifests.parse(json.dumps({**document, "schema_version": "1.9"}).encode(), where="x").schema_version == "1.9"
    )


def test_the_wrong_kind_is_refused_by_name(tmp_path):
    found = make_output(make_plan(tmp_path))
    assert manifests.expect(found, Kind.TARGETS, name="targets") is found
    with pytest.raises(UsageError, match=r"input values is a ValueTargets .*, expected a ValueSet"):
        manifests.expect(found, Kind.VALUES, name="values")


def test_no_metrics_no_file(tmp_path):
    found = Output(make_plan(tmp_path)).publish({})
    assert found.metrics() == {}
    assert not storage.exists(found.file("metrics.json"))


def test_json_has_null_where_a_number_is_not_finite():
    found = finite(
        {
            1: float("nan"),
            "list": [math.inf, -math.inf, 1.5],
            "array": np.array([[1.0, np.nan]], dtype=np.float32),
            "scalars": (np.float32("nan"), np.int64(3), np.bool_(True), np.float64(0.25)),
            "plain": [True, None, "nan", 7],
        }
    )

    assert found == {
        "1": None,
        "list": [None, None, 1.5],
        "array": [[1.0, None]],
        "scalars": [None, 3, True, 0.25],
        "plain": [True, None, "nan", 7],
    }
    assert [type(item) for item in found["scalars"][1:]] == [int, bool, float]


def test_metrics_that_are_not_numbers_become_null(tmp_path):
    output = Output(make_plan(tmp_path))
    output.metrics["correlation"] = np.float64("nan")
    assert output.publish({}).metrics() == {"correlation": None}


def test_the_image_is_recorded_and_changes_no_file(tmp_path, monkeypatch):
    plain = make_output(make_plan(tmp_path / "a"))
    monkeypatch.setenv("ROBOLIFT_IMAGE", "registry/cpu@sha256:1")
    pinned = make_output(make_plan(tmp_path / "b"))

    assert (plain.image, pinned.image) == ("", "registry/cpu@sha256:1")
    assert (plain.digest, plain.files) == (pinned.digest, pinned.files)


def test_a_root_moved_whole_leads_to_the_parents_inside_it(tmp_path):
    parent = make_output(make_plan(tmp_path / "old", digest="a" * 16))
    outside = make_output(make_plan(tmp_path / "shared", digest="c" * 16))
    child = make_output(make_plan(tmp_path / "old", digest="b" * 16, inputs={"values": [parent, outside]}))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moved = manifests.load(str(tmp_path / "new/label_returns" / child.digest))

    # The copy leads to the copy even while the original is there, and what lay elsewhere stays there.
    for _ in range(2):
        found = moved.parents("values")
        assert [m.uri for m in found] == [f"file://{tmp_path}/new/label_returns/{'a' * 16}", outside.uri]
        assert found[0] == replace(parent, uri=found[0].uri)
        shutil.rmtree(tmp_path / "old", ignore_errors=True)


def test_a_store_that_fails_is_not_taken_for_an_unfinished_output(monkeypatch):
    fs, _ = storage.filesystem("memory://slow")

    def throttle(*_args, **_kwargs):
        raise OSError(16, "Please reduce your request rate.")

    monkeypatch.setattr(type(fs), "info", throttle)
    with pytest.raises(OSError, match="reduce your request rate"):
        manifests.load("memory://slow/label_returns/0123456789abcdef")

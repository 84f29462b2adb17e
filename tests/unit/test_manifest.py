from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robolift import manifest as manifests
from robolift import staging, storage
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind

TABLE = {"episode_index": [0, 0], "frame_index": [0, 1], "value_target": [-1.0, 0.0], "reward": [-1.0, 0.0]}


def make_plan(root, *, digest="0123456789abcdef", config=None, inputs=None) -> Plan:
    return Plan(
        stage="label_returns",
        kind=Kind.TARGETS,
        root=str(root),
        config=config or {"scheme": "task_max"},
        inputs=inputs or {},
        code="c0de",
        digest=digest,
        seed=7,
    )


def make_output(plan: Plan) -> Manifest:
    output = Output(plan)
    output.write_table("targets", TABLE)
    output.metrics["spread"] = np.float32(0.5)
    return output.publish({"frames": np.int64(2)})


@pytest.fixture(params=["file", "memory", "s3"])
def root(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/root"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return storage.join(request.getfixturevalue("s3"), uuid.uuid4().hex)


def test_a_published_output_has_its_files_their_list_and_the_manifest(root):
    found = make_output(make_plan(root))

    names = [name for name, _ in storage.list_files(found.uri)]
    assert names == ["files.json", "manifest.json", "metrics.json", "targets.parquet"]
    assert found.uri == storage.join(root, "label_returns/0123456789abcdef")
    assert found.table("targets").column("reward").to_pylist() == [-1.0, 0.0]
    assert found.metrics() == {"spread": 0.5}
    assert (found.kind, found.counts, found.seed) == ("ValueTargets", {"frames": 2}, 7)
    assert found.files["count"] == 2
    assert manifests.load(found.uri) == found
    assert manifests.load(storage.join(found.uri, "manifest.json")) == found
    manifests.verify(found)


def test_the_file_list_gives_size_hash_and_rows(tmp_path):
    found = make_output(make_plan(tmp_path))

    facts = storage.read_json(found.file("files.json"))["targets.parquet"]
    path = storage.local_path(found.file("targets.parquet"))
    assert facts == {"bytes": path.stat().st_size, "rows": 2, "sha256": storage.sha256_file(path)}


def test_nothing_is_visible_before_publishing(root):
    plan = make_plan(root)
    output = Output(plan)
    output.write_table("targets", TABLE)

    assert plan.finished() is None
    assert not storage.exists(plan.uri)
    output.discard()
    assert storage.list_files(root) == []
    assert not output.path.exists()


def test_the_same_bytes_whatever_the_root(tmp_path):
    one, two = make_output(make_plan(tmp_path / "one")), make_output(make_plan("memory://elsewhere"))

    listings = [storage.read_bytes(found.file("files.json")) for found in (one, two)]
    assert listings[0] == listings[1]
    assert one.files == two.files
    storage.remove("memory://elsewhere")


@pytest.mark.parametrize("damage", ["change", "remove", "list"])
def test_verify_names_what_was_changed_after_publishing(root, damage):
    found = make_output(make_plan(root))
    name = "files.json" if damage == "list" else "targets.parquet"
    if damage == "remove":
        storage.remove(found.file(name))
    else:
        content = b"{}" if damage == "list" else storage.read_bytes(found.file(name))[:-1] + b"X"
        storage.write_bytes(found.file(name), content)

    with pytest.raises(DataError) as caught:
        manifests.verify(found)
    assert caught.value.where == found.file(name)


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


def test_a_second_publisher_keeps_the_finished_output(root):
    first, second = Output(make_plan(root)), Output(make_plan(root))
    for output in (first, second):
        output.write_table("targets", TABLE)
    finished = first.publish({"frames": 2})
    stamp = storage.read_bytes(finished.file("manifest.json"))

    assert second.publish({"frames": 999}) == finished
    assert storage.read_bytes(finished.file("manifest.json")) == stamp
    assert not first.path.exists()
    assert not second.path.exists()


def test_an_unfinished_folder_in_the_way_is_replaced(root):
    plan = make_plan(root)
    storage.write_bytes(storage.join(plan.uri, "targets.parquet"), b"half")

    found = make_output(plan)

    manifests.verify(found)


def test_publishing_removes_the_resumable_state(root):
    plan = make_plan(root)
    storage.write_bytes(storage.join(plan.work_uri, "step-10"), b"state")

    make_output(plan)

    assert not storage.exists(storage.join(plan.work_uri, "step-10"))


def test_publishing_happens_once_and_discarding_twice_is_harmless(tmp_path):
    output = Output(make_plan(tmp_path))
    output.publish({})
    output.discard()
    assert [p.name for p in (tmp_path / "label_returns").iterdir()] == ["0123456789abcdef"]


PUBLISHER = """
    import os, signal, sys
    from robolift import storage
    import test_manifest as t
    root, point = sys.argv[1:]
    die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    plan = t.make_plan(root)
    output = t.Output(plan)
    storage.write_bytes(storage.join(plan.work_uri, "state"), b"kept")
    output.write_table("targets", t.TABLE)
    output.metrics["spread"] = 0.5
    if point == "before":
        die()
    elif point == "between files":
        count, upload = [0], storage.upload
        def second(*args):
            count[0] += 1
            die() if count[0] == 2 else upload(*args)
        storage.upload = second
    elif point == "before manifest":
        write = storage.write_bytes
        storage.write_bytes = lambda uri, content: die() if uri.endswith("manifest.json") else write(uri, content)
    elif point == "before sweep":
        t.Plan.sweep = die
    output.publish({"frames": 2})
    """


def kill_publisher(root: str, point: str) -> None:
    here = str(Path(__file__).parent)
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PUBLISHER), root, point],
        env={**os.environ, "PYTHONPATH": here},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("store", "point"),
    [
        ("file", "before"),
        ("file", "before manifest"),
        ("file", "before sweep"),
        ("s3", "before"),
        ("s3", "between files"),
        ("s3", "before manifest"),
        ("s3", "before sweep"),
    ],
)
def test_a_kill_in_the_middle_of_publishing_shows_nothing_and_a_rerun_mends_it(store, point, tmp_path, request):
    root = f"file://{tmp_path}/root"
    if store == "s3":
        root = storage.join(request.getfixturevalue("s3"), uuid.uuid4().hex)
    plan = make_plan(root)

    kill_publisher(root, point)

    if point == "before sweep":
        manifests.verify(plan.finished())
    else:
        assert plan.finished() is None
        assert storage.read_bytes(storage.join(plan.work_uri, "state")) == b"kept"
        with pytest.raises(DataError, match="not finished"):
            manifests.load(plan.uri)

    again = plan.finished() or make_output(plan)
    plan.sweep()

    manifests.verify(again)
    undisturbed = make_output(make_plan(tmp_path / "other"))
    assert storage.read_bytes(again.file("files.json")) == storage.read_bytes(undisturbed.file("files.json"))
    assert again.files == undisturbed.files
    published = {name.split("/")[0] for name, _ in storage.list_files(root)}
    assert published == {"label_returns"}
    parent, name = plan.staging_place
    assert list(parent.glob(f".{name}.*")) == []


def test_a_living_process_keeps_its_staging_folder(tmp_path):
    alive = Output(make_plan(tmp_path))
    (alive.path / "half").write_bytes(b"x")

    with_same_identity = Output(make_plan(tmp_path))

    assert (alive.path / "half").exists()
    assert alive.path != with_same_identity.path
    alive.discard()
    with_same_identity.discard()
    assert list((tmp_path / "label_returns").iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    kill_publisher(f"file://{tmp_path}", "before")
    parent, name = make_plan(tmp_path).staging_place
    (left,) = parent.glob(f".{name}.*")

    output = Output(make_plan(tmp_path))

    assert not left.exists()
    output.discard()


def test_a_file_system_without_locks_loses_nobody_s_work(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(staging.fcntl, "flock", unsupported)
    first = staging.claim(tmp_path, "out")
    second = staging.claim(tmp_path, "out")

    assert first.path.is_dir()
    first.release()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_taken_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock = staging.fcntl.flock
    taken = []

    def take_first(handle, how):
        lock(handle, how)
        if not taken:
            taken.extend(tmp_path.glob(".out.*"))
            shutil.rmtree(taken[0])

    monkeypatch.setattr(staging.fcntl, "flock", take_first)
    found = staging.claim(tmp_path, "out")

    assert found.path.is_dir()
    assert found.path != taken[0]
    found.release()


def test_a_reader_never_meets_a_half_written_folder(tmp_path):
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            for folder in tmp_path.glob("out-*"):
                seen.append({p.name for p in folder.iterdir()})

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        staged = staging.claim(tmp_path, f"out-{number}")
        for name in ("a", "b", "manifest.json"):
            (staged.path / name).write_bytes(b"x" * 10_000)
        staging.rename_into_place(staged.path, tmp_path / f"out-{number}", marker="manifest.json")
        staged.release()
    stop.set()
    reader.join()

    assert seen
    assert all(names == {"a", "b", "manifest.json"} for names in seen)


def test_an_error_of_the_disk_while_publishing_is_not_taken_for_a_rival(tmp_path):
    with pytest.raises(FileNotFoundError):
        staging.rename_into_place(tmp_path / "none", tmp_path / "out", marker="manifest.json")


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
    found = manifests.finite(
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

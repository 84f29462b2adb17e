"""How an output comes to be seen: all at once, whatever is killed meanwhile and whoever publishes the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
from published_targets import TABLE, make_output, make_plan

from robolift import manifest as manifests
from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Output


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
    from published_targets import TABLE, make_plan
    from robolift.manifest import Output, Plan
    root, point = sys.argv[1:]
    die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    plan = make_plan(root)
    output = Output(plan)
    storage.write_bytes(storage.join(plan.work_uri, "state"), b"kept")
    output.write_table("targets", TABLE)
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
        Plan.sweep = die
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

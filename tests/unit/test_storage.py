from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import fsspec
import pytest

from robolift import storage
from robolift.errors import DataError, UsageError


@pytest.fixture(params=["file", "memory", "s3"])
def root(request, tmp_path):
    """An empty folder on each kind of store."""
    if request.param == "file":
        yield f"file://{tmp_path}/root"
    elif request.param == "memory":
        uri = f"memory://{uuid.uuid4().hex}"
        yield uri
        storage.remove(uri)
    else:
        yield storage.join(request.getfixturevalue("s3"), uuid.uuid4().hex)


def test_what_is_written_is_read_back(root):
    uri = storage.join(root, "a/b.bin")
    storage.write_bytes(uri, b"\x00\xff")
    storage.write_bytes(uri, b"second")

    assert storage.read_bytes(uri) == b"second"
    assert storage.exists(uri)
    assert not storage.exists(storage.join(root, "a/c.bin"))


def test_listing_gives_relative_names_and_sizes_in_order(root):
    for name, size in (("b/2.bin", 2), ("a.bin", 1), ("b/1.bin", 3)):
        storage.write_bytes(storage.join(root, name), b"x" * size)

    assert storage.list_files(root) == [("a.bin", 1), ("b/1.bin", 3), ("b/2.bin", 2)]
    assert storage.list_files(storage.join(root, "none")) == []


def test_removing_a_folder_removes_all_below_it_and_nothing_else(root):
    for name in ("keep/1", "drop/1", "drop/2/3"):
        storage.write_bytes(storage.join(root, name), b"x")

    storage.remove(storage.join(root, "drop"))
    storage.remove(storage.join(root, "drop"))

    assert storage.list_files(root) == [("keep/1", 1)]


def test_an_upload_has_the_bytes_of_the_file(root, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content")

    storage.upload(source, storage.join(root, "a/target"))

    assert storage.read_bytes(storage.join(root, "a/target")) == b"content"
    assert storage.list_files(root) == [("a/target", 7)]


def test_a_local_view_has_the_bytes_of_any_store(root):
    storage.write_bytes(storage.join(root, "clip.mp4"), b"frames")

    with storage.as_local(storage.join(root, "clip.mp4")) as path:
        assert path.read_bytes() == b"frames"
        assert path.name == "clip.mp4"


def test_a_missing_file_is_a_data_error_that_names_it(root):
    uri = storage.join(root, "none.bin")

    with pytest.raises(DataError, match="file not found") as caught:
        storage.read_bytes(uri)
    assert caught.value.where == uri


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_missing_remote_file_has_no_local_view(store, request):
    base = "memory://nothing" if store == "memory" else request.getfixturevalue("s3")
    with pytest.raises(DataError, match="file not found"), storage.as_local(storage.join(base, "none.bin")):
        pass


def test_what_another_process_writes_is_seen_at_once(s3):
    folder = storage.join(s3, uuid.uuid4().hex)
    storage.write_bytes(storage.join(folder, "values.bin"), b"1")
    assert [name for name, _ in storage.list_files(folder)] == ["values.bin"]
    fs, path = storage.filesystem(folder)
    fs.ls(path)

    writer = fsspec.filesystem("s3", skip_instance_cache=True)
    writer.pipe_file(f"{path}/manifest.json", b"{}")
    writer.pipe_file(f"{path}/values.bin", b"longer")

    assert storage.exists(storage.join(folder, "manifest.json"))
    assert storage.read_bytes(storage.join(folder, "values.bin")) == b"longer"


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        storage.read_bytes(str(tmp_path))


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="may not be read"):
        storage.open_file(str(tmp_path / "secret"))
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DataError, match="may not be read"):
        storage.read_bytes(str(tmp_path / "secret"))


def test_names_with_glob_characters_are_names(tmp_path):
    uri = str(tmp_path / "clip[0-9]*.bin")
    storage.write_bytes(uri, b"x")
    assert storage.read_bytes(uri) == b"x"


def test_plain_paths_become_file_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.normalize("runs/a") == f"file://{tmp_path}/runs/a"
    assert storage.normalize("~/a") == f"file://{Path.home()}/a"
    assert storage.normalize("s3://bucket/a") == "s3://bucket/a"
    assert storage.local_path("file:///a/b") == Path("/a/b")
    assert storage.local_path("gs://bucket/b") is None


def test_joining_puts_one_slash_between_parts():
    assert storage.join("s3://bucket/", "/a/", "b.json") == "s3://bucket/a/b.json"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xff"])
def test_broken_json_is_a_data_error(tmp_path, content):
    path = tmp_path / "info.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not valid JSON"):
        storage.read_json(str(path))


def test_json_is_canonical_and_refuses_nan():
    assert storage.to_json_bytes({"b": 1, "a": ["ä"]}) == b'{\n "a": [\n  "\xc3\xa4"\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.to_json_bytes({"a": float("nan")})


def test_digests_follow_content_and_not_the_order_of_keys():
    assert storage.digest_of({"a": 1, "b": 2}) == storage.digest_of({"b": 2, "a": 1}) == "3d2e4f36f8be1af1"
    assert storage.digest_of({"a": 1, "b": 3}) != storage.digest_of({"a": 1, "b": 2})


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert storage.sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_failed_write_leaves_the_old_bytes_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    storage.write_bytes(str(path), b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(path), b"new")
    with pytest.raises(OSError, match="No space left"):
        storage.upload(path, str(tmp_path / "copy.json"))
    monkeypatch.undo()

    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]
    assert path.read_bytes() == b"old"


def test_a_reader_beside_a_writer_sees_whole_files_only(tmp_path):
    path = tmp_path / "state"
    versions = [bytes([i]) * 200_000 for i in range(2)]
    storage.write_bytes(str(path), versions[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for version in versions:
                storage.write_bytes(str(path), version)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {storage.read_bytes(str(path)) for _ in range(200)}
    stop.set()
    writer.join()

    assert seen <= set(versions)


def test_a_writer_killed_in_the_middle_leaves_the_old_bytes(tmp_path):
    path = tmp_path / "state"
    storage.write_bytes(str(path), b"old")
    # The process dies when the new bytes are on the disk, but before they carry the file's name.
    script = (
        "import os, signal\n"
        "from robolift import storage\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.write_bytes({str(path)!r}, b'new')\n"
    )
    died = subprocess.run([sys.executable, "-c", script], check=False)

    assert died.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("call", [storage.exists, storage.read_bytes, storage.list_files])
def test_a_store_that_nobody_knows_is_a_wrong_call(call):
    with pytest.raises(UsageError, match=r"no store for s4://bucket/a: .*expected a path or an address of file://"):
        call("s4://bucket/a")
    with pytest.raises(UsageError, match="no store for s4://"):
        storage.write_bytes("s4://bucket/a", b"x")


class NoCredentialsError(Exception):
    """As botocore names it."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("Forbidden"), r"may not be read\n(.|\n)*mend: give this account read access"),
        (NoCredentialsError("Unable to locate"), r"no credentials to read it with: Unable(.|\n)*mend: log in"),
    ],
)
def test_what_a_store_keeps_from_us_is_said(monkeypatch, error, message):
    fs, _ = storage.filesystem("memory://vault")

    def refuse(*_args, **_kwargs):
        raise error

    for name in ("info", "find", "_open", "pipe_file", "get_file"):
        monkeypatch.setattr(type(fs), name, refuse)
    for call in (storage.exists, storage.list_files, storage.read_bytes):
        with pytest.raises(DataError, match=message):
            call("memory://vault/a")
    with pytest.raises(UsageError, match=r"memory://vault/a can't be written: .*choose another output_root"):
        storage.write_bytes("memory://vault/a", b"x")


def test_a_store_that_is_slow_is_not_taken_for_one_that_refuses(monkeypatch):
    fs, _ = storage.filesystem("memory://busy")

    def throttle(*_args, **_kwargs):
        raise OSError(16, "Please reduce your request rate.")

    monkeypatch.setattr(type(fs), "info", throttle)
    monkeypatch.setattr(type(fs), "pipe_file", throttle)
    with pytest.raises(OSError, match="reduce your request rate"):
        storage.exists("memory://busy/a")
    with pytest.raises(OSError, match="reduce your request rate"):
        storage.write_bytes("memory://busy/a", b"x")


def test_listing_follows_links_to_folders_and_stops_at_circles(tmp_path):
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "disk/deep/file").write_bytes(b"12345")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "disk")
    (root / "file").symlink_to(tmp_path / "disk/deep/file")
    (root / "lost").symlink_to(tmp_path / "nowhere")
    (tmp_path / "disk/up").symlink_to(tmp_path / "disk")

    assert storage.list_files(str(root)) == [("file", 5), ("linked/deep/file", 5)]


def test_the_pods_of_a_job_that_probe_one_folder_at_the_same_time_do_not_meet(s3, monkeypatch):
    remove, removed = storage.remove, []

    def remove_noting(uri):
        removed.append(uri)
        remove(uri)

    monkeypatch.setattr(storage, "remove", remove_noting)
    storage.probe(f"{s3}/work")
    storage.probe(f"{s3}/work")
    assert len(set(removed)) == 2
    assert storage.list_files(f"{s3}/work") == []


def test_removing_what_another_process_removes_meanwhile_is_no_error(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "exists", lambda _: True)  # it was there when this process looked
    storage.remove(f"{s3}/gone")
    storage.remove(str(tmp_path / "gone"))


def test_a_finished_file_gets_a_second_place(tmp_path):
    storage.write_bytes(f"{tmp_path}/one", b"12")
    storage.duplicate(f"{tmp_path}/one", f"{tmp_path}/other/two")
    assert os.stat(tmp_path / "one").st_ino == os.stat(tmp_path / "other/two").st_ino
    storage.duplicate(f"{tmp_path}/one", f"{tmp_path}/other/two")  # it has its place already
    storage.duplicate(f"{tmp_path}/one", "memory://second/place")
    storage.duplicate("memory://second/place", f"{tmp_path}/back/three")
    assert (tmp_path / "back/three").read_bytes() == storage.read_bytes("memory://second/place") == b"12"
    with pytest.raises(UsageError, match="neither is on this machine"):
        storage.duplicate("memory://second/place", "memory://third/place")
    with pytest.raises(DataError, match="file not found"):
        storage.duplicate("memory://second/none", f"{tmp_path}/back/four")
    storage.remove("memory://second")


def test_a_second_place_on_another_disk_is_a_copy(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    storage.write_bytes(f"{tmp_path}/one", b"12")
    storage.duplicate(f"{tmp_path}/one", f"{tmp_path}/other/two")
    assert (tmp_path / "other/two").read_bytes() == b"12"
    assert (tmp_path / "other/two").stat().st_nlink == 1


def test_what_lies_on_a_disk_is_told_as_fsspec_tells_it(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "folder", "pipe", "link"):
        told = fsspec.filesystem("file").info(str(tmp_path / name))
        assert storage.info(str(tmp_path / name)) == {key: told[key] for key in ("type", "size")}
    (tmp_path / "lost").symlink_to("nothing")
    assert [storage.info(f"file://{tmp_path}/{name}") for name in ("lost", "none", "file/below")] == [None] * 3

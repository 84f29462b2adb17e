"""Copying to and from a bucket: only what is missing, whole files, nothing deleted, and on again after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from robolift import storage
from robolift.__main__ import main
from robolift.clips import sync as module
from robolift.clips.sync import plan_sync, sync
from robolift.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    """Five small files, one of them empty and one in a subfolder with a space in its name."""
    for number, name in enumerate(("a.mp4", "b.mp4", "c c/d.mp4", "e.mp4")):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (1000 + number))
    (tmp_path / "src" / "empty").write_bytes(b"")
    return tmp_path / "src"


def names(plan):
    return [(transfer.name, transfer.reason) for transfer in plan.transfers]


def test_up_and_down_again_is_the_same(s3, folder, tmp_path):
    plan = plan_sync(str(folder), f"{s3}/clips")
    assert len(plan.transfers) == 5
    assert plan.bytes == 1000 + 1001 + 1002 + 1003
    sync(plan)
    assert names(plan_sync(str(folder), f"{s3}/clips")) == []
    down = tmp_path / "down"
    sync(plan_sync(f"{s3}/clips", str(down)))
    found = {str(path.relative_to(down)): path.read_bytes() for path in down.rglob("*") if path.is_file()}
    assert found == {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert plan_sync(f"{s3}/clips", str(down)).present == 5


def test_a_run_that_broke_off_copies_only_the_rest(s3, folder, monkeypatch):
    sent = []
    upload = storage.upload

    def breaks(path: Path, uri: str) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(uri)
        upload(path, uri)

    monkeypatch.setattr(storage, "upload", breaks)
    with pytest.raises(KeyboardInterrupt):
        sync(plan_sync(str(folder), f"{s3}/clips"))
    monkeypatch.setattr(storage, "upload", upload)
    assert [name for name, _ in storage.list_files(f"{s3}/clips")] == ["a.mp4", "b.mp4"]
    rest = plan_sync(str(folder), f"{s3}/clips")
    assert names(rest) == [("c c/d.mp4", "new"), ("e.mp4", "new"), ("empty", "new")]
    sync(rest)
    assert plan_sync(str(folder), f"{s3}/clips").present == 5


def test_changed_content_of_the_same_size_is_copied_and_nothing_is_deleted(s3, folder):
    sync(plan_sync(str(folder), f"{s3}/clips"))
    (folder / "b.mp4").write_bytes(b"x" * 1001)
    (folder / "a.mp4").unlink()
    plan = plan_sync(str(folder), f"{s3}/clips")
    assert names(plan) == [("b.mp4", "differs")]
    assert (plan.present, plan.others) == (3, 1)
    sync(plan)
    assert storage.read_bytes(f"{s3}/clips/b.mp4") == b"x" * 1001
    assert storage.exists(f"{s3}/clips/a.mp4")
    assert len(plan_sync(str(folder), f"{s3}/clips", force=True).transfers) == 4


def test_an_object_sent_in_parts_is_compared_without_being_read(s3, tmp_path, monkeypatch):
    import fsspec

    path = tmp_path / "src" / "big.mp4"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * (11 << 12))  # 11 MiB: S3 takes parts from 5 MiB on
    fsspec.filesystem("s3").put_file(str(path), f"{s3}/big/big.mp4", chunksize=5 << 20)
    assert "-3" in storage.list_entries(f"{s3}/big")["big.mp4"]["ETag"]
    monkeypatch.setattr(module, "PART_BYTES", 5 << 20)
    read = []
    opened = storage.open_file
    monkeypatch.setattr(storage, "open_file", lambda uri, *mode: read.append(uri) or opened(uri, *mode))
    assert plan_sync(str(path.parent), f"{s3}/big").present == 1
    assert read == [f"{path.parent}/big.mp4"]
    # In parts of a size that isn't ours both are read, and found equal or not.
    monkeypatch.setattr(module, "PART_BYTES", 7 << 20)
    assert plan_sync(str(path.parent), f"{s3}/big").present == 1
    path.write_bytes(b"\x00" * (11 << 20))
    assert names(plan_sync(str(path.parent), f"{s3}/big")) == [("big.mp4", "differs")]


def test_between_disks_and_past_unfinished_copies(folder, tmp_path):
    (folder / ".a.mp4.4711").write_bytes(b"half")
    plan = plan_sync(str(folder), str(tmp_path / "copy"))
    assert len(plan.transfers) == 5
    assert plan.skipped == (".a.mp4.4711",)
    sync(plan)
    assert names(plan_sync(str(folder), str(tmp_path / "copy"))) == []
    (tmp_path / "copy" / "a.mp4").write_bytes(b"y" * 1000)
    assert names(plan_sync(str(folder), str(tmp_path / "copy"))) == [("a.mp4", "differs")]


def test_a_copy_that_came_out_short_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "upload", lambda path, uri: storage.write_bytes(uri, b"short"))
    with pytest.raises(DataError, match="the copy has 5 bytes"):
        sync(plan_sync(str(folder), str(tmp_path / "copy")))


def test_refusals(folder, tmp_path):
    with pytest.raises(UsageError, match="lie in each other"):
        plan_sync(str(folder), str(folder / "c c"))
    with pytest.raises(DataError, match="no files to copy"):
        plan_sync(str(tmp_path / "nothing"), str(tmp_path / "copy"))


def test_the_command_line_says_what_is_overwritten_and_what_is_skipped(folder, tmp_path, capsys):
    (folder / ".a.mp4.4711").write_bytes(b"half")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a.mp4").write_bytes(b"old")
    assert main(["upload", str(folder), str(tmp_path / "copy"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "a.mp4  1000 bytes, overwrites (differs)" in printed
    assert "b.mp4  1001 bytes, new" in printed
    assert "5 files would be copied (4006 bytes), of which 1 over others" in printed
    assert "1 skipped, named like a copy that is not whole yet: .a.mp4.4711" in printed
    assert main(["upload", str(folder), str(tmp_path / "copy"), "--force", "--dry-run"]) == 0
    assert "b.mp4  1001 bytes, new" in capsys.readouterr().out


def test_the_command_line(s3, folder, tmp_path, capsys):
    assert main(["upload", str(folder), f"{s3}/clips", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "c c/d.mp4  1002 bytes, new" in printed
    assert "5 files would be copied (4006 bytes), of which 0 over others; 0 were there" in printed
    assert not storage.exists(f"{s3}/clips")
    assert main(["upload", str(folder), f"{s3}/clips"]) == 0
    assert "5 files copied" in capsys.readouterr().out
    assert main(["download", f"{s3}/clips", str(tmp_path / "down"), "--force"]) == 0
    assert (tmp_path / "down" / "e.mp4").stat().st_size == 1003
    assert main(["upload", f"{s3}/clips", str(tmp_path / "down")]) == 64
    assert "is not on this machine" in capsys.readouterr().err
    assert main(["download", f"{s3}/clips", f"{s3}/other"]) == 64

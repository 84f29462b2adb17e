"""Files of a frame cache in memory: who reads in order holds little of them, who reads here and there keeps them."""

from __future__ import annotations

from pathlib import Path

from robolift.data import frame_cache
from robolift.data.frame_blocks import Span
from robolift.data.frame_cache import MappedFiles


def test_mapped_files_are_let_go_before_they_fill_the_memory(tmp_path):
    def held() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile")) * 1024

    path = tmp_path / "shard"
    with path.open("wb") as file:
        for number in range(300):
            file.write(bytes([number % 251]) * 1_000_000)
    files, before, most = MappedFiles({"a": path}), held(), 0
    first = files.read([Span(digest="a", first=0, length=10)])[0]
    for number in range(300):
        (content,) = files.read([Span(digest="a", first=number * 1_000_000, length=1_000_000)])
        assert content.sum() == number % 251 * 1_000_000
        most = max(most, held() - before)
    assert most < 100_000_000
    # What was handed out stays as it was.
    assert first.tolist() == [0] * 10


def test_mapped_files_stay_where_they_are_read_here_and_there(tmp_path, monkeypatch):
    let_go = []
    monkeypatch.setattr(frame_cache, "HELD_BYTES", 40)
    (tmp_path / "shard").write_bytes(bytes(range(100)))

    class Watched(frame_cache.mmap.mmap):
        def madvise(self, *_):
            let_go.append(len(self))

    monkeypatch.setattr(frame_cache.mmap, "mmap", Watched)
    files = MappedFiles({"a": tmp_path / "shard"})
    for first in (30, 0, 60, 20, 80, 50, 10, 70, 40):
        (content,) = files.read([Span(digest="a", first=first, length=10)])
        assert content.tolist() == list(range(first, first + 10))
    assert let_go == []
    files.read([Span(digest="a", first=first, length=10) for first in range(0, 100, 10)])
    assert let_go == [100]

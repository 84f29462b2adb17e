"""Frames decoded by other processes: the same bits and errors in the same order, and nothing is left of them."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import av
import numpy as np
import pytest
from coded_dataset import LENGTHS, TOP, WRIST, write_dataset, write_packed
from coded_video import coded_image, read_code

from robolift.data.dataset import Dataset
from robolift.data.decode_workers import DecodeWorkers, Share, serve, shares
from robolift.data.decoding import Batch, Wanted, cut, decoded
from robolift.data.lost_worker import WorkerLostError
from robolift.data.spawned import run
from robolift.data.video import VideoClip
from robolift.data.video_decoder import decode_frames
from robolift.errors import DataError
from robolift.stages.stage import execute


def imported(source: Path, root: Path) -> Dataset:
    rules = {"dataset_uri": str(source), "intervention_column": "intervention"}
    return Dataset.open(execute("import_dataset", rules, {}, str(root)))


def wanted(episodes: range = range(4), batch_size: int = 5, cameras: tuple[str, ...] = (TOP, WRIST)) -> Wanted:
    return Wanted(cameras=cameras, size=(24, 48), padded=True, episodes=episodes, batch_size=batch_size)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("decode")
    return imported(write_packed(folder)["v3.0"], folder / "runs")


def test_rows_have_fixed_places_in_batches() -> None:
    assert list(cut(3, 9, 4)) == [
        Batch(places=slice(3, 4), rows=slice(3, 4), number=0),
        Batch(places=slice(0, 4), rows=slice(4, 8), number=1),
        Batch(places=slice(0, 1), rows=slice(8, 9), number=2),
    ]
    assert list(cut(3, 3, 4)) == []


def test_cameras_are_dealt_out_first_and_then_batches() -> None:
    assert [share.cameras for share in shares(3, 1)] == [(0, 1, 2)]
    assert [share.cameras for share in shares(3, 2)] == [(0, 2), (1,)]
    assert [share.cameras for share in shares(3, 5)] == [(0,), (1,), (2,)]
    assert shares(2, 4)[2:] == [Share(cameras=(k,), lane=1, num_lanes=2) for k in range(2)]


def test_each_place_has_its_frame_and_the_others_are_empty(packed: Dataset) -> None:
    some = wanted(range(1, 3), batch_size=7)
    batches = [images.copy() for images in decoded(packed, some)]
    assert some.num_batches(packed.starts) == len(batches)
    assert [batch.shape for batch in batches] == [(7, 2, 24, 48, 3)] * 5  # rows 12 to 35
    images = np.concatenate(batches)
    assert not images[:5].any()
    assert not images[36 - 7 :].any()
    codes = [(episode, frame) for episode in (1, 2) for frame in range(LENGTHS[episode])]
    assert [read_code(image) for image in images[5 : 36 - 7, 0]] == codes


@pytest.mark.parametrize("num_workers", [2, 5])
def test_the_bits_do_not_depend_on_the_number_of_processes(packed: Dataset, num_workers: int) -> None:
    expected = [images.copy() for images in decoded(packed, wanted(range(1, 4)))]
    with DecodeWorkers(packed, wanted(range(1, 4)), num_workers) as workers:
        found = [images.copy() for images in workers.images()]
    assert len(found) == 7
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_parts_of_a_video_are_the_frames_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"g": "40", "bf": "2", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for frame in range(120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(coded_image(1, frame), format="rgb24")))
        container.mux(stream.encode(None))
    clip = VideoClip(str(path), 0.5, 100, 20)
    whole = list(decode_frames(clip, size=(16, 32)))
    parts = [range(3, 8), range(8, 9), range(11, 30), range(85, 100)]
    found = list(decode_frames(clip, size=(16, 32), parts=parts))
    expected = [whole[frame] for part in parts for frame in part]
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    with pytest.raises(DataError, match=r"120 frames from 0\.500 s on, 110 are there"):
        list(decode_frames(VideoClip(str(path), 0.5, 120, 20), parts=[range(3), range(105, 115)]))


def test_the_first_broken_frame_is_reported_as_it_would_be_here(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", "v2.1")
    dataset = imported(source, tmp_path / "runs")
    for camera, episode in ((TOP, 3), (WRIST, 2)):
        with (source / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4").open("ab") as file:
            file.write(b"more")
    with pytest.raises(DataError, match="episode_000002") as here:
        list(decoded(dataset, wanted(batch_size=4)))
    seen: list[int] = []
    with DecodeWorkers(dataset, wanted(batch_size=4), 4) as workers, pytest.raises(DataError) as there:
        seen.extend(len(images) for images in workers.images())
    assert str(there.value) == str(here.value)
    assert there.value.exit_code == 65
    assert seen == [4] * 5  # those before row 20, the last but one of episode 1


def test_a_process_that_dies_says_so(packed: Dataset) -> None:
    with DecodeWorkers(packed, wanted(batch_size=1), 1) as workers:
        images = workers.images()
        next(images)
        (pid,) = [worker.process.pid for worker in workers._workers]
        os.kill(pid, signal.SIGKILL)
        told = r"decode worker 0 was killed by signal 9 before batch \d+ was there; .* fewer decode_workers"
        with pytest.raises(WorkerLostError, match=told) as found:
            list(images)
        assert found.value.exit_code == 143


def test_a_process_ends_quietly_when_its_answer_is_not_read_any_more(packed: Dataset) -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send([])  # so that the end of the connection is a reset
    ours.close()
    some = wanted(batch_size=1)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        run(serve, theirs, bytearray(math.prod(some.shape)), packed.uri, some, shares(2, 1)[0])
    finally:
        signal.signal(signal.SIGINT, interrupt)


def test_where_a_process_can_not_be_started_those_that_were_are_stopped(
    packed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[SpawnProcess] = []
    start = SpawnProcess.start

    def refused(process: SpawnProcess) -> None:
        if started:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        started.append(process)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", refused)
    with pytest.raises(BlockingIOError) as found:
        DecodeWorkers(packed, wanted(), 2)
    assert found.value.errno == errno.EAGAIN
    assert [process.is_alive() for process in started] == [False]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_process_that_decodes_for_itself(packed: Dataset, tmp_path: Path, how: int) -> None:
    script = tmp_path / "decode.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from robolift import manifest
        from robolift.data.dataset import Dataset
        from robolift.data.decode_workers import DecodeWorkers
        from robolift.data.decoding import Wanted

        if __name__ == "__main__":
            dataset = Dataset.open(manifest.load({packed.uri!r}))
            wanted = Wanted(
                cameras={(TOP, WRIST)!r}, size=(32, 64), padded=False, episodes=range(4), batch_size=2
            )
            with DecodeWorkers(dataset, wanted, 2) as workers:
                next(workers.images())
                print(*(worker.process.pid for worker in workers._workers), flush=True)
                sys.stdin.read()
        """)
    )
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        shared = [line for line in Path(f"/proc/{pids[0]}/maps").read_text().splitlines() if "rw-s" in line]
        assert shared
        assert all(line.endswith("(deleted)") for line in shared)  # no name: nothing to be left
        parent.send_signal(how)
        assert parent.wait() == -how
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)

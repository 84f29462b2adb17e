"""A shard that is stopped, on other stores and with a model in the step."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from annotated import anchors, annotate, command, digests, plan, records, say
from openai_server import OpenAIServer

from robolift.stages.stage import execute


@pytest.fixture
def server():
    with OpenAIServer(say=say) as running:
        yield running


def await_that(condition, process):
    """Wait for something of a process that runs."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_shard_asks_only_about_what_was_not_answered(stop, dataset, tmp_path):
    with OpenAIServer("good", "good", "good", "hold", "hold", "slow:2", say=say) as server:
        planned = plan(dataset, tmp_path / "a")
        arguments = command(dataset, planned, server, tmp_path / "a", max_in_flight=2)
        process = subprocess.Popen(
            arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        # Three were answered, and two are under way.
        await_that(lambda: len(records(tmp_path / "a")) == 3 and len(server.requests) == 5, process)
        process.send_signal(stop)
        if stop == signal.SIGTERM:
            time.sleep(0.5)  # it does not wait for ever, but for what comes now
        server.release()
        stopped = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - stopped < 15  # those under way, not the longest that they may take
        assert process.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 143)
        server.await_silence()
        kept = records(tmp_path / "a")
        if stop == signal.SIGKILL:
            assert (len(kept), len(server.requests)) == (3, 5)
        else:  # what was under way came to its end, and nothing new was begun
            assert 5 <= len(kept) == len(server.requests) < 8
        assert not list((tmp_path / "a" / "annotate_rewards").glob("*/manifest.json"))

        server.play("good")
        done = annotate(dataset, planned, server, tmp_path / "a")
        assert len(server.requests) == 8 - len(kept)
        server.play("good")
        undisturbed = annotate(dataset, plan(dataset, tmp_path / "b"), server, tmp_path / "b")
        assert len(server.requests) == 8
    assert (done.digest, done.files, digests(done)) == (undisturbed.digest, undisturbed.files, digests(undisturbed))
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_answers_are_kept_in_an_object_store_too(dataset, server, s3, tmp_path):
    planned = plan(dataset, s3)
    first = annotate(dataset, planned, server, s3, num_shards=2)
    again = annotate(dataset, planned, server, s3)
    assert len(server.requests) == 8
    assert again.counts["labelled"] == 8
    assert first.counts["episodes"] < 8
    assert len(records(s3)) == 8


@pytest.mark.parametrize("protocol", ["logprob", "head"])
def test_a_model_in_the_step_labels(protocol, dataset, tiny_vlm, tmp_path):
    settings = {"max_frames": 2, "num_prefixes": 2, "dtype": "float32", "image_side": 32}
    planned = plan(dataset, tmp_path, protocol, model=str(tiny_vlm), endpoint="", **settings)
    inputs = {"dataset": dataset.uri, "plan": planned.uri}
    made = execute("annotate_rewards", {"num_shards": 4}, inputs, str(tmp_path))
    assert made.counts["labelled"] + made.counts["errors"] == made.counts["episodes"] > 0
    assert made.counts["requests"] > 0
    # Another way to compute may give other last bits, and stands under another digest: it takes nobody else's answers.
    before = len(records(tmp_path))
    other = execute("annotate_rewards", {"num_shards": 4, "batch_size": 1}, inputs, str(tmp_path))
    assert other.digest != made.digest
    assert len(records(tmp_path)) == 2 * before
    if protocol == "head":
        assert made.counts["errors"] == 0
        assert all(0 <= row["success_prob"] <= 1 for row in anchors(made))

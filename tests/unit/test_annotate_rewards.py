"""A shard of episodes against a real server: what it is asked, what becomes of each answer, and what a kill costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic
from annotated import anchors, annotate, command, digests, errors, plan, records, say
from openai_server import OpenAIServer

from robolift import storage
from robolift.__main__ import main
from robolift.annotators.messages import TransportError
from robolift.errors import DataError, UsageError
from robolift.manifest import verify
from robolift.schema import read_parquet
from robolift.stages.stage import execute


@pytest.fixture
def server():
    with OpenAIServer(say=say) as running:
        yield running


@pytest.mark.parametrize("protocol", ["logprob", "shuffled", "rubric", "pairwise"])
def test_each_protocol_labels_every_episode(protocol, dataset, server, tmp_path):
    planned = plan(dataset, tmp_path, protocol, num_prefixes=4)
    made = annotate(dataset, planned, server, tmp_path)
    assert made.counts["requests"] == len(server.requests) == planned.counts["requests"]
    assert (made.counts["episodes"], made.counts["labelled"], made.counts["errors"]) == (8, 8, 0)
    assert errors(made) == []
    episodes = dataset.table("episodes").to_pylist()
    rows = anchors(made)
    keys = [(row["episode_index"], row["frame_index"]) for row in rows]
    assert keys == sorted(set(keys))
    last = {row["episode_index"]: row for row in rows}
    assert {index: row["frame_index"] for index, row in last.items()} == {
        episode["episode_index"]: episode["length"] - 1 for episode in episodes
    }
    # Scripts come in turn: the third and seventh episode fail.
    if protocol in ("logprob", "rubric"):
        ends = [last[index]["success_prob"] for index in range(8)]
        assert max(ends[2], ends[6]) < min(end for index, end in enumerate(ends) if index not in (2, 6))
    assert made.metrics() == made.counts
    verify(made)


def test_the_server_is_shown_what_the_plan_says(dataset, server, tmp_path):
    cameras = [synthetic.TOPVIEW, synthetic.BEHIND]
    planned = plan(dataset, tmp_path, "rubric", cameras=cameras, max_frames=2)
    annotate(dataset, planned, server, tmp_path, num_shards=8, shard=0)
    backgrounds = [[int(picture[0, 0].mean()) for picture in request.pictures] for request in server.requests]
    assert server.requests
    for shown in backgrounds:
        # The top view has a dark background, the other one a lighter one: moment by moment, not camera by camera.
        assert [abs(value - 24) < 12 for value in shown] == [True, False, True, False]
    assert all(synthetic.TASK in request.text for request in server.requests)


def test_garbled_answers_are_asked_for_once_more_and_never_become_labels(dataset, tmp_path):
    with OpenAIServer("garbled", say=say) as server:
        planned = plan(dataset, tmp_path, "shuffled")
        made = annotate(dataset, planned, server, tmp_path)
        assert len(server.requests) == 2 * 8
        assert (made.counts["labelled"], made.counts["errors"], made.counts["requests"]) == (0, 8, 16)
        assert anchors(made) == []
        assert [error["episode_index"] for error in errors(made)] == list(range(8))
        assert {error["class"] for error in errors(made)} == {"ParseError"}
        again = server.requests[-1].text
        assert "I am afraid that I could not say." in again
        assert "That answer can't be used" in again


@pytest.mark.parametrize(("entry", "protocol"), [("filter", "rubric"), ("filtered", "logprob")])
def test_what_a_filter_withholds_costs_its_episode_alone(entry, protocol, dataset, tmp_path):
    with OpenAIServer(entry, entry, "good", say=say) as server:
        planned = plan(dataset, tmp_path, protocol, num_prefixes=2)
        made = annotate(dataset, planned, server, tmp_path, max_in_flight=1)
    # Both the question and its repetition were withheld, or two questions and neither again.
    assert made.counts["errors"] in (0, 1)
    assert made.counts["labelled"] == 8 - made.counts["errors"]
    with OpenAIServer(entry, say=say) as server:
        made = annotate(dataset, plan(dataset, tmp_path / "b", protocol, num_prefixes=2), server, tmp_path / "b")
    assert (made.counts["labelled"], made.counts["errors"]) == (0, 8)
    assert "withheld by a content filter; switch the filter off at the server" in errors(made)[0]["message"]


def test_one_garbled_answer_costs_one_request_and_no_label(dataset, tmp_path):
    with OpenAIServer("garbled", "good", say=say) as server:
        made = annotate(dataset, plan(dataset, tmp_path), server, tmp_path)
        assert len(server.requests) == 9
    rows = read_parquet(made.file("answers.parquet")).to_pylist()
    assert sorted(row["parsed"] for row in rows) == [False, *[True] * 8]
    assert made.counts["labelled"] == 8


def test_a_bad_connection_changes_nothing(dataset, tmp_path):
    with OpenAIServer(say=say) as server:
        good = annotate(dataset, plan(dataset, tmp_path / "a"), server, tmp_path / "a")
        assert len(server.requests) == 8
    with OpenAIServer("429:0", "slow:0.3", "500:0", "503:0", "slow:0.2", "good", "429:0", "good", say=say) as server:
        bad = annotate(dataset, plan(dataset, tmp_path / "b"), server, tmp_path / "b", max_tries=6)
        assert len(server.requests) == 12
    assert (bad.digest, bad.files, digests(bad)) == (good.digest, good.files, digests(good))
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_a_server_that_is_down_publishes_nothing_and_what_it_answered_is_kept(dataset, tmp_path):
    planned = plan(dataset, tmp_path)
    with OpenAIServer("good", "good", "good", "500", say=say) as server:
        with pytest.raises(TransportError, match=r"no answer about [345] of 8 episodes;[\s\S]*run it again"):
            annotate(dataset, planned, server, tmp_path, max_tries=1)
        assert len(records(tmp_path)) == 3
        assert storage.list_files(f"{tmp_path}/annotate_rewards") == []
        server.play("good")
        made = annotate(dataset, planned, server, tmp_path)
        assert len(server.requests) == 5
    assert made.counts["labelled"] == 8


def test_a_server_without_logprobs_is_told_of_at_once(dataset, tmp_path):
    with OpenAIServer("nologprobs", say=say) as server:
        with pytest.raises(UsageError, match="no log-probabilities"):
            annotate(dataset, plan(dataset, tmp_path, "logprob"), server, tmp_path, max_in_flight=1)
        assert len(server.requests) < 20


def test_appended_episodes_are_all_that_is_asked_about(recording_uri, dataset, server, tmp_path):
    first = annotate(dataset, plan(dataset, tmp_path), server, tmp_path)
    synthetic.write_recording(tmp_path / "more", episodes=2, seed=7)
    grown = execute("import_dataset", {"dataset_uri": str(tmp_path / "more")}, {"previous": dataset.uri}, str(tmp_path))
    server.play("good")
    second = annotate(grown, plan(grown, tmp_path), server, tmp_path)
    assert len(server.requests) == 2
    assert second.counts["episodes"] == 10
    assert anchors(second)[: len(anchors(first))] == anchors(first)


def test_the_number_of_shards_changes_no_label(dataset, server, tmp_path):
    whole = annotate(dataset, plan(dataset, tmp_path / "a", "logprob"), server, tmp_path / "a")
    planned = plan(dataset, tmp_path / "b", "logprob")
    shards = [annotate(dataset, planned, server, tmp_path / "b", num_shards=3, shard=shard) for shard in range(3)]
    assert sum(shard.counts["episodes"] for shard in shards) == 8
    together = sorted(
        (row for shard in shards for row in anchors(shard)), key=lambda row: (row["episode_index"], row["frame_index"])
    )
    assert together == anchors(whole)
    assert sum(shard.counts["input_tokens"] for shard in shards) == whole.counts["input_tokens"]


def test_a_shard_without_episodes_is_empty(dataset, server, tmp_path):
    planned = plan(dataset, tmp_path)
    made = annotate(dataset, planned, server, tmp_path, num_shards=64, shard=63)
    assert (made.counts["episodes"], anchors(made), server.requests) == (0, [], [])


def test_nobody_is_asked_where_the_plan_names_no_model(dataset, tmp_path):
    planned = execute("plan_labels", {}, {"dataset": dataset.uri}, str(tmp_path))
    made = execute("annotate_rewards", {}, {"dataset": dataset.uri, "plan": planned.uri}, str(tmp_path))
    assert made.counts == {
        "episodes": 8,
        "labelled": 0,
        "errors": 0,
        "requests": 0,
        "input_tokens": 0,
        "output_tokens": 0,
    }
    assert (anchors(made), errors(made)) == ([], [])
    assert read_parquet(made.file("answers.parquet")).num_rows == 0


def test_a_plan_that_does_not_fit_is_refused(dataset, server, tmp_path):
    planned = plan(dataset, tmp_path)
    with pytest.raises(UsageError, match="endpoint is empty"):
        execute("annotate_rewards", {}, {"dataset": dataset.uri, "plan": planned.uri}, str(tmp_path))
    nobody = execute("plan_labels", {}, {"dataset": dataset.uri}, str(tmp_path))
    with pytest.raises(UsageError, match="the plan was made without one"):
        annotate(dataset, nobody, server, tmp_path)
    synthetic.write_recording(tmp_path / "other", episodes=2, seed=7)
    other = execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {}, str(tmp_path))
    with pytest.raises(UsageError, match=rf"made for the dataset {dataset.digest}, and this one is {other.digest}"):
        annotate(other, planned, server, tmp_path)
    with pytest.raises(UsageError, match="shards count from 0"):
        annotate(dataset, planned, server, tmp_path, num_shards=2, shard=2)
    place = Path(storage.local_path(planned.uri)) / "plan.json"
    for text, message in (
        ("{}", "not a label plan"),
        ('{"labeller": {"cameras": []}, "prompt": ""}', "not a labeller"),
    ):
        place.write_text(text)
        with pytest.raises(DataError, match=message):
            annotate(dataset, planned, server, tmp_path)
    assert server.requests == []


def test_a_dry_run_counts_the_shards_questions(dataset, server, tmp_path, capsys):
    planned = plan(dataset, tmp_path)
    arguments = command(dataset, planned, server, tmp_path, num_shards=2, shard=1)[3:]
    assert main([*arguments, "--dry-run"]) == 0
    # crc32 of 0..7 as text is odd for all of 0, 1, 2, 3 and for none or some of the others.
    told = capsys.readouterr().out
    made = annotate(dataset, planned, server, tmp_path, num_shards=2, shard=1)
    assert f"is asked {made.counts['requests']} questions" in told
    assert f"about {made.counts['episodes']} episodes" in told

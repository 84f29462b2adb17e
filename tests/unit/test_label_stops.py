"""Asking: how much is held and under way at once, and what becomes of it when the process is told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from interviews import Script, files, interview

from robolift.annotators.messages import TransportError
from robolift.data.dataset import Dataset


@pytest.fixture
def opened(dataset):
    return Dataset.open(dataset)


@pytest.mark.parametrize(
    ("protocol", "workers", "episodes"),
    # 3 questions of pairwise, one of rubric: twice as many questions as workers, and one episode to read.
    [("pairwise", 6, 5), ("pairwise", 1, 2), ("rubric", 2, 3), ("rubric", 64, 9)],
)
def test_few_episodes_are_in_memory_and_no_more_than_allowed_are_asked_about(
    protocol, workers, episodes, opened, tmp_path, monkeypatch
):
    from robolift.annotators import ask

    lock, now, most = threading.Lock(), {"held": 0, "asked": 0}, {"held": 0, "asked": 0}

    def step(what, by):
        with lock:
            now[what] += by
            most[what] = max(most[what], now[what])

    read, judge = ask.read_pictures, ask.judge

    def held(*arguments):
        step("held", 1)
        return read(*arguments)

    def let_go(*arguments):
        step("held", -1)
        return judge(*arguments)

    monkeypatch.setattr(ask, "read_pictures", held)
    monkeypatch.setattr(ask, "judge", let_go)
    transport = Script(say="+1" if protocol == "pairwise" else "3", workers=workers)
    answer = transport.ask

    def slowly(questions, heard):
        step("asked", 1)
        time.sleep(0.05)
        step("asked", -1)
        return answer(questions, heard)

    monkeypatch.setattr(transport, "ask", slowly)
    found = interview(opened, tmp_path, transport, protocol).verdicts(list(range(8)))
    assert len(found) == 8
    assert most["held"] <= episodes
    assert most["asked"] <= workers


def test_told_to_stop_it_begins_nothing_and_does_not_wait_for_ever(opened, tmp_path, monkeypatch):
    from robolift.annotators import ask

    class Hanging(Script):
        closed = threading.Event()

        def ask(self, questions, heard):
            if len(self.asked) < 2:
                return super().ask(questions, heard)
            if not self.closed.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                self.closed.wait(120)
            raise TransportError("is not asked any more")

        def close(self):
            self.closed.set()

    def told(*_):
        raise SystemExit(143)

    monkeypatch.setattr(ask, "FINISH_S", 0.2)
    transport = Hanging(workers=1)
    before = signal.signal(signal.SIGTERM, told)
    try:
        with pytest.raises(SystemExit):
            interview(opened, tmp_path, transport).verdicts(list(range(8)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert transport.closed.is_set()
    assert len(files(tmp_path)) == 2


def test_an_answer_is_kept_even_if_there_is_none_to_the_question_asked_again(opened, tmp_path):
    def say(question):
        if question.earlier:
            raise TransportError("the server is away")
        return "hm"

    with pytest.raises(TransportError, match="no answer about 1 of 1 episodes"):
        interview(opened, tmp_path, Script(say=say)).verdicts([0])
    transport = Script(say="2")
    (verdict,) = interview(opened, tmp_path, transport).verdicts([0])
    assert [[text for text, _ in question.earlier] for question in transport.asked] == [["hm"]]
    assert verdict.anchors[0].score == 2

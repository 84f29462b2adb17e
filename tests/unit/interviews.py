"""Interviews of a transport that says what it is told to."""

from __future__ import annotations

import threading

from labellers import labeller

from robolift import storage
from robolift.annotators.answers import AnswerStore
from robolift.annotators.ask import Interview
from robolift.annotators.messages import Answer
from robolift.annotators.prompts import load_prompt


class Script:
    """A transport that says what it is told to, and remembers what it was asked."""

    def __init__(self, say="3", workers=2):
        self.workers = workers
        self.form = {}
        self.say = say if callable(say) else lambda _question: say
        self.asked = []
        self.lock = threading.Lock()

    def probe(self):
        pass

    def ask(self, questions, heard):
        with self.lock:
            self.asked += questions
        for place, question in enumerate(questions):
            said = self.say(question)
            heard(place, said if isinstance(said, Answer) else Answer(text=said, input_tokens=10, output_tokens=1))

    def close(self):
        pass


def interview(dataset, store, transport, name="rubric", prompt=None, **changes):
    return Interview(
        dataset=dataset,
        labeller=labeller(name, **changes),
        prompt=prompt or load_prompt(name, "v1"),
        transport=transport,
        store=AnswerStore(str(store)),
    )


def files(root):
    return {name: storage.read_bytes(f"{root}/{name}") for name, _ in storage.list_files(str(root))}

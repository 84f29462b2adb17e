"""Which prompt a served policy acts under."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.errors import DataError, UsageError
from robolift.policy.server.prompt_rule import PromptLabel, PromptRule

NEGATIVE, POSITIVE = "fold, Advantage: negative", "fold, Advantage: positive"
TRAINED = ("fold", NEGATIVE, POSITIVE)


def rule(label, trained=TRAINED, tasks=("fold",)):
    return PromptRule.of(PromptLabel(label), tasks=tasks, trained=trained)


@pytest.mark.parametrize("sent", ["fold", POSITIVE, np.str_("fold"), np.array("fold")])
def test_positive_is_forced(sent):
    assert rule("positive").resolve(sent) == POSITIVE


def test_the_other_labels():
    assert rule("negative").resolve("fold") == NEGATIVE
    assert [rule("as_sent").resolve(text) for text in TRAINED] == list(TRAINED)


def test_another_label_than_the_servers_is_refused_with_what_to_do():
    with pytest.raises(DataError) as refused:
        rule("positive").resolve(NEGATIVE)
    assert str(refused.value) == (
        "the prompt 'fold, Advantage: negative' is not served: this server acts under positive\n"
        "  where: prompt\n"
        "  expected: one of:\n"
        "    'fold'\n"
        "    'fold, Advantage: positive'\n"
        "  mend: send the task alone, or start the server with --prompt-label as_sent"
    )


@pytest.mark.parametrize("label", ["positive", "negative", "as_sent"])
@pytest.mark.parametrize(
    "sent",
    [
        "Task: fold, State: 1 2 3;\nAction: ",
        "Task: fold, State: 1 2 3, Advantage: positive;\nAction: ",
        "fold. Advantage: positive",
        "fold, advantage: positive",
        "fold ",
        "Fold",
        "",
        "unfold",
    ],
)
def test_another_format_or_task_is_refused(label, sent):
    with pytest.raises(DataError, match="another task, or another format of prompts"):
        rule(label).resolve(sent)


@pytest.mark.parametrize("sent", [None, 3, b"fold", ["fold"], np.array(["fold"]), np.array(1.0), {}])
def test_what_is_no_text_is_refused(sent):
    with pytest.raises(DataError, match="the prompt is "):
        rule("positive").resolve(sent)


def test_the_best_of_slices_and_of_no_labels():
    slices = ("fold", *(f"fold, Advantage: {i}" for i in (0, 2, 10)))
    assert rule("positive", slices).resolve("fold") == "fold, Advantage: 10"
    assert rule("positive", ("fold",)).resolve("fold") == "fold"


def test_each_task_has_its_own_and_an_untrained_one_has_none():
    found = rule("positive", (POSITIVE, "wipe", "wipe, Advantage: positive"), tasks=("fold", "wipe", "sweep"))
    assert found.served == [POSITIVE, "wipe, Advantage: positive"]
    assert found.resolve("wipe") == "wipe, Advantage: positive"
    with pytest.raises(DataError, match="not trained on the prompt 'sweep'"):
        found.resolve("sweep")


def test_a_label_that_was_not_trained_is_refused_before_anything_is_served():
    with pytest.raises(UsageError, match="no task was trained under negative; the policy was trained on:\n  'fold'"):
        rule("negative", ("fold",))


def test_errors_stay_short_whatever_is_sent_or_known():
    known = [f"task {i}, Advantage: positive" for i in range(1000)]
    with pytest.raises(DataError, match="and 1980 more") as refused:
        rule("positive", known, tasks=[f"task {i}" for i in range(1000)]).resolve("x" * 10_000)
    assert len(str(refused.value)) < 2000

"""Ask a model about episodes, several at a time; what was answered before is not asked again."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, replace
from functools import partial

from robolift.annotators.answers import AnswerStore, Attempts, answer_key, as_kept
from robolift.annotators.labeller import Labeller
from robolift.annotators.messages import Answer, Question, Transport, TransportError
from robolift.annotators.planning import load_of
from robolift.annotators.prompts import Prompt
from robolift.annotators.protocol import Anchor, LabelProtocol, Look, ParseError, Scene, split
from robolift.annotators.protocols import PROTOCOLS
from robolift.annotators.sampling import read_pictures
from robolift.data.dataset import Dataset
from robolift.logging import progress

MAX_ATTEMPTS = 2
"""An answer that can't be read is asked for once more; then the episode has no label, and an error instead."""
NO_WORDS = "(no answer)"
"""Stands for an empty answer where it is held up to the model: servers and chat templates refuse empty turns."""
SHOWN_FAILURES = 3
AWAY_EPISODES = 3
"""So many episodes in a row without an answer, and with none to any other question meanwhile, and the server is taken
to be away: the rest would only use up their tries, for hours."""
FINISH_S = 20.0
"""How long a run that is told to stop waits for answers under way; a cluster kills it after thirty seconds."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A question whose answers can't be read.

    Attributes:
        request: Number of the question.
        message: What was wrong with the last answer, and what may mend it.
    """

    request: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All that was answered about an episode.

    Attributes:
        episode_index: The episode.
        anchors: What the answers say; empty unless every question has an answer that can be read.
        attempts: The answers to each question.
        parsed: Whether each of them can be read.
        failures: Questions without an answer that can be read.
    """

    episode_index: int
    anchors: tuple[Anchor, ...]
    attempts: Attempts
    parsed: list[list[bool]]
    failures: tuple[Failure, ...]


class Interview:
    """Asks about the episodes of one dataset.

    Args:
        dataset: What the episodes are read from.
        labeller: Who is asked what.
        prompt: In these words.
        transport: Over this way.
        store: What was answered before, and is kept for later.
    """

    def __init__(
        self, *, dataset: Dataset, labeller: Labeller, prompt: Prompt, transport: Transport, store: AnswerStore
    ) -> None:
        self._dataset = dataset
        self._labeller = labeller
        self._prompt = prompt
        self._transport = transport
        self._store = store
        self._tasks = dataset.episodes.column("task")
        self._lengths = dataset.episodes.column("length")
        self._protocol: LabelProtocol = PROTOCOLS[labeller.protocol]
        self._asking = threading.BoundedSemaphore(transport.workers)
        self._gate = threading.Lock()
        self._unanswered: dict[int, TransportError] = {}
        self._silent = 0
        self._away = threading.Event()
        self._same: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def verdicts(self, episodes: Sequence[int]) -> list[Verdict]:
        """Return what is answered about each episode, in their order; whose answer came first shows nowhere.

        When this thread is told to stop, no other episode is begun, and those under way have some seconds to be
        finished and kept.

        Raises:
            TransportError: If there was no answer about some episodes. The others are finished and kept first, unless
                ``AWAY_EPISODES`` in a row got none.
            UsageError: If the server or model can't do what is asked for.
            DataError: If an episode can't be read.
        """
        if episodes:
            self._transport.probe()
        found: dict[int, Verdict] = {}
        pool = ThreadPoolExecutor(self._at_once(episodes), thread_name_prefix="episode")
        begun: dict[Future[Verdict | None], int] = {}
        try:
            begun.update((pool.submit(self._try, episode), episode) for episode in episodes)
            for future in self._shown(begun):
                if verdict := future.result():
                    found[begun[future]] = verdict
                elif self._away.is_set():
                    raise self._no_answer(len(episodes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in begun if not future.cancelled()], timeout=FINISH_S)
            self._transport.close()
            raise
        pool.shutdown()
        if self._unanswered:
            raise self._no_answer(len(episodes))
        return [found[episode] for episode in episodes]

    def _try(self, episode: int) -> Verdict | None:
        """Return what is answered about an episode; None without an answer, or where the server is away by now."""
        if self._away.is_set():
            return None
        try:
            return self.verdict(episode)
        except TransportError as error:
            with self._gate:
                self._unanswered[episode] = error
                self._silent += 1
                if self._silent >= AWAY_EPISODES:
                    self._away.set()
        return None

    def _no_answer(self, total: int) -> TransportError:
        with self._gate:
            unanswered = dict(self._unanswered)
        why = f"{AWAY_EPISODES} in a row, so the rest was not asked about; " if self._away.is_set() else ""
        return TransportError(
            "\n  ".join(
                [
                    f"no answer about {len(unanswered)} of {total} episodes; {why}every answer so far is kept, "
                    "run it again to ask about the missing ones",
                    *(f"episode {episode}: {unanswered[episode]}" for episode in sorted(unanswered)[:SHOWN_FAILURES]),
                ]
            )
        )

    def _at_once(self, episodes: Sequence[int]) -> int:
        """Return how many episodes to hold in memory: enough questions for all workers twice over, and one to read.

        An episode that takes many questions has many pictures too, so the more questions, the fewer episodes.
        """
        requests = [load_of(self._labeller, self._lengths[episode].as_py()).requests for episode in episodes]
        workers, questions = self._transport.workers, max(sum(requests), 1)
        return min(workers, -(-2 * workers * len(episodes) // questions)) + 1

    def _shown(self, begun: dict[Future[Verdict | None], int]) -> Iterator[Future[Verdict | None]]:
        return progress(as_completed(begun), total=len(begun), what="episodes asked about", unit="episode")

    def verdict(self, episode: int) -> Verdict:
        """Return what is answered about an episode, asking only what was never answered.

        Raises:
            TransportError: If there is no answer.
            DataError: If the episode can't be read.
        """
        looks = self._protocol.looks(self._labeller, self._lengths[episode].as_py())
        scene = self._scene(episode, looks)
        key = answer_key(self._labeller, scene, looks, self._transport.form)
        with self._gate:
            same = self._same[key]
        with same:  # two episodes with the same pictures are asked about once
            attempts = self._store.read(key, len(looks))
            self._complete(key, attempts, scene, looks)
        return judge(self._protocol, episode, attempts, looks)

    def _scene(self, episode: int, looks: Sequence[Look]) -> Scene:
        shown = {frame for look in looks for frame in look.frames}
        return Scene(
            task=self._tasks[episode].as_py(),
            cameras=self._labeller.cameras,
            pictures=read_pictures(self._dataset, episode, self._labeller, shown),
        )

    def _complete(self, key: str, attempts: Attempts, scene: Scene, looks: Sequence[Look]) -> None:
        """Ask until each question has an answer that can be read, or had its attempts; keep each answer as it comes."""
        writing = threading.Lock()

        def keep(numbers: Sequence[int], place: int, answer: Answer) -> None:
            with writing:
                attempts[numbers[place]].append(as_kept(answer))
                self._store.write(key, attempts)
            with self._gate:
                self._silent = 0

        while open_questions := [
            number for number, answers in enumerate(attempts) if not self._settled(answers, looks[number])
        ]:
            questions = [self._question(attempts[number], scene, looks[number]) for number in open_questions]
            with self._asking:
                self._transport.ask(questions, partial(keep, open_questions))

    def _settled(self, answers: Sequence[Answer], look: Look) -> bool:
        # A model's heads say the same again.
        most = 1 if self._protocol.NEEDS_HEADS else MAX_ATTEMPTS
        return len(answers) >= most or any(problem(self._protocol, answer, look) is None for answer in answers)

    def _question(self, answers: Sequence[Answer], scene: Scene, look: Look) -> Question:
        question = self._protocol.question(self._prompt, scene, look)
        num_frames = len(split(self._prompt, look)[1])
        problems = [problem(self._protocol, answer, look) for answer in answers]
        said = [self._prompt.fill("reprompt", problem=str(found), num_frames=num_frames) for found in problems]
        texts = [answer.text if answer.text.strip() else NO_WORDS for answer in answers]
        return replace(question, earlier=tuple(zip(texts, said, strict=True)))


def problem(protocol: LabelProtocol, answer: Answer, look: Look) -> ParseError | None:
    """Return what is wrong with an answer, None if it can be read."""
    try:
        protocol.parse(answer, look)
    except ParseError as error:
        return error
    return None


def judge(protocol: LabelProtocol, episode: int, attempts: Attempts, looks: Sequence[Look]) -> Verdict:
    """Return what the answers about an episode mean; of each question the first that can be read counts."""
    problems = [
        [problem(protocol, answer, look) for answer in answers] for answers, look in zip(attempts, looks, strict=True)
    ]
    failures = tuple(
        Failure(request=number, message="; ".join(filter(None, (str(last), last.mend))))
        for number, found in enumerate(problems)
        if None not in found and (last := found[-1])
    )
    anchors: list[Anchor] = []
    if not failures:
        readings = [
            protocol.parse(answers[found.index(None)], look)
            for answers, found, look in zip(attempts, problems, looks, strict=True)
        ]
        anchors = protocol.anchors(readings)
    return Verdict(
        episode_index=episode,
        anchors=tuple(anchors),
        attempts=attempts,
        parsed=[[found is None for found in several] for several in problems],
        failures=failures,
    )

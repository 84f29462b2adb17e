"""Make planned episodes in parallel and hand them over in order, a bounded number at a time.

Neither the number of workers nor their speed changes an episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from robolift.errors import UsageError
from robolift.sim.plans import EpisodePlan
from robolift.sim.records import EpisodeRecord, Observation
from robolift.sim.tasks import ACTION_DIM
from robolift.sim.workers import Begin, Continue, Request, Workers

Actor = Callable[[Mapping[str, np.ndarray], Sequence[int]], np.ndarray]
"""(observations by key, each (B, ...); B seeds) -> actions (B, horizon, 4). Rows do not influence one another."""

RECORDS_AHEAD_PER_WORKER = 3
SLOTS = 16
CALLS_PER_EPISODE = 1000


def record_scripted(workers: Workers, plans: Sequence[EpisodePlan]) -> Iterator[EpisodeRecord]:
    """Yield the records of episodes that need no policy, in the order of ``plans``.

    At most ``RECORDS_AHEAD_PER_WORKER`` records a worker are held, however slow the caller is.
    """
    ahead = RECORDS_AHEAD_PER_WORKER * len(workers)
    playing: dict[int, int] = {}  # worker -> place in plans
    finished: dict[int, EpisodeRecord] = {}
    begun = 0
    for wanted in range(len(plans)):
        while wanted not in finished:
            for worker in range(len(workers)):
                if worker not in playing and begun < min(len(plans), wanted + ahead):
                    workers.send(worker, {0: Begin(plans[begun])})
                    playing[worker] = begun
                    begun += 1
            for worker in workers.ready():
                finished[playing.pop(worker)] = workers.receive(worker)[0]
        yield finished.pop(wanted)


def record_with_actor(
    workers: Workers, plans: Sequence[EpisodePlan], actor: Actor, *, slots: int = SLOTS
) -> Iterator[EpisodeRecord]:
    """Yield the records of episodes in which a policy acts, in the order of ``plans``.

    ``slots`` episodes run in lockstep with one actor call for all; the next episode takes the place of one that ended.
    An episode's n-th call has a seed made of the episode's seed and n, the same for every policy.

    Args:
        workers: Simulator processes.
        plans: What to make; scripted episodes may be among them.
        actor: The policy.
        slots: Episodes in progress at once; changes the speed and the memory, not the result.
    """
    running: dict[int, int] = {}  # slot -> place in plans
    waiting: dict[int, Observation] = {}
    finished: dict[int, EpisodeRecord] = {}
    calls: Counter[int] = Counter()
    begun = wanted = 0
    while wanted < len(plans):
        requests: dict[int, Request] = {}
        if waiting:
            places = [running[slot] for slot in waiting]
            seeds = [plans[place].seed * CALLS_PER_EPISODE + calls[place] for place in places]
            calls.update(places)
            chunks = _checked(actor(_stack(list(waiting.values())), seeds), len(waiting))
            requests = {slot: Continue(chunk) for slot, chunk in zip(waiting, chunks, strict=True)}
            waiting = {}
        for slot in range(slots):
            if slot not in running and begun < min(len(plans), wanted + 2 * slots):
                requests[slot] = Begin(plans[begun])
                running[slot] = begun
                begun += 1
        for slot, reply in workers.exchange(requests).items():
            if isinstance(reply, EpisodeRecord):
                finished[running.pop(slot)] = reply
            else:
                waiting[slot] = reply
        while wanted in finished:
            yield finished.pop(wanted)
            wanted += 1


def _stack(observations: Sequence[Observation]) -> dict[str, np.ndarray]:
    return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}


def _checked(actions: np.ndarray, rows: int) -> np.ndarray:
    actions = np.asarray(actions, np.float32)
    if actions.ndim != 3 or actions.shape[0] != rows or actions.shape[1] < 1 or actions.shape[2] != ACTION_DIM:
        raise UsageError(
            f"the policy returned actions of shape {actions.shape}, expected ({rows}, horizon, {ACTION_DIM}): "
            "was it trained on another robot?"
        )
    if not np.isfinite(actions).all():
        raise UsageError("the policy returned actions that are not finite: its training diverged")
    return actions

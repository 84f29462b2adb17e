"""Which weights train. Needs no JAX.

With low-rank updates the expert that they update is frozen; the vision tower and the small projections still train, as
in openpi's ``Pi0Config.get_freeze_filter``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from robolift.errors import UsageError
from robolift.policy.pi05 import tree
from robolift.policy.pi05.config import Pi05Config
from robolift.policy.pi05.tree import Params

GEMMAS, ACTION_EXPERT, UPDATES = r".*llm.*", r".*llm.*_1.*", r".*lora.*"


def trained(config: Pi05Config, frozen: Sequence[str] = ()) -> Params:
    """Return the tree of weights with True where a weight trains.

    Args:
        config: Architecture; its low-rank updates freeze what they update.
        frozen: Patterns of whole paths that are frozen too, for example ``PaliGemma/img/.*``.

    Raises:
        UsageError: If a pattern is no regular expression or matches no weight, or if nothing is left to train.
    """
    paths = list(tree.names_and_shapes(config))
    matched = [_matching(pattern, paths) for pattern in frozen]
    still = set().union(*matched, filter(lambda path: is_updated_by_lora(config, path), paths))
    if len(still) == len(paths):
        raise UsageError(f"frozen = {list(frozen)} leaves no weight to train; leave one out")
    return tree.unflatten({path: path not in still for path in paths})


def is_updated_by_lora(config: Pi05Config, path: str) -> bool:
    """Return whether low-rank updates stand for the training of ``path``; never true of the updates themselves."""
    language, actions = config.vlm.lora_rank > 0, config.expert.lora_rank > 0
    of_actions = re.fullmatch(ACTION_EXPERT, path) is not None
    in_gemmas = re.fullmatch(GEMMAS, path) is not None
    return re.fullmatch(UPDATES, path) is None and in_gemmas and (actions if of_actions else language)


def _matching(pattern: str, paths: Sequence[str]) -> set[str]:
    try:
        found = {path for path in paths if re.fullmatch(pattern, path)}
    except re.error as error:
        raise UsageError(f"frozen pattern {pattern!r} is no regular expression: {error}") from error
    if not found:
        raise UsageError(
            f"frozen pattern {pattern!r} matches no weight, though it must match a whole path such as {paths[0]}"
        )
    return found

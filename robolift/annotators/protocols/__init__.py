"""What a model is asked about an episode, and what its answers mean; one file a protocol."""

from __future__ import annotations

from collections.abc import Mapping

from robolift.annotators.protocol import LabelProtocol
from robolift.annotators.protocols import head, logprob, pairwise, rubric, shuffled

PROTOCOLS: Mapping[str, LabelProtocol] = {
    "logprob": logprob,
    "shuffled": shuffled,
    "rubric": rubric,
    "pairwise": pairwise,
    "head": head,
}

"""What an image encoder sees: its output for the sampled frames.

``embedding`` of a clip is their mean, not normalised, as the prototype has it; each frame's own stays beside it.
"""

from __future__ import annotations

import numpy as np

from robolift.clips.encoders.encoder import Encoder
from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools

VERSION = 1
SCALARS = ()
TRACKS = ("embedding",)


class _Embedding(Measurement):
    def __init__(self, clip: Clip, encoder: Encoder) -> None:
        self._sampled = frozenset(clip.sampled)
        self._encoder = encoder
        self._frames: list[np.ndarray] = []

    def see(self, frame: Frame) -> None:
        if frame.index in self._sampled:
            self._frames.append(frame.rgb)

    def finish(self) -> Findings:
        # A clip's frames are one batch: whatever the kernels of a batch shape do, other clips change no bit.
        return Findings(tracks={"embedding": self._encoder.encode(np.stack(self._frames))})


def start(clip: Clip, tools: Tools) -> Measurement:
    """Begin with a clip."""
    assert tools.encoder is not None
    return _Embedding(clip, tools.encoder)

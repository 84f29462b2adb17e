"""How PyTorch's work is recorded: a trace of every operator and kernel, for Perfetto and TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

TRACE_FILE = "torch.pt.trace.json.gz"
"""TensorBoard's plugin finds traces by the end of their name."""


class TorchRecorder:
    """A :class:`~robolift.training.profiling.Recorder` of CPU and GPU, with the shapes of what operators are given."""

    def __init__(self) -> None:
        self._profile: Any = None

    def start(self, _folder: Path) -> None:
        """Begin to record."""
        devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._profile = profile(activities=[ProfilerActivity.CPU, *devices], record_shapes=True)
        self._profile.start()

    def stop(self, folder: Path) -> None:
        """Write one trace."""
        self._profile.stop()
        self._profile.export_chrome_trace(str(folder / TRACE_FILE))
        self._profile = None

"""How JAX's work is recorded: an XPlane for TensorBoard and a trace for Perfetto."""

from __future__ import annotations

from pathlib import Path

import jax

from robolift.policy import xla  # noqa: F401


class JaxRecorder:
    """A :class:`~robolift.training.profiling.Recorder` of this process and its devices."""

    def start(self, folder: Path) -> None:
        """Begin to record."""
        jax.profiler.start_trace(folder, create_perfetto_trace=True)

    def stop(self, _folder: Path) -> None:
        """Write what was recorded."""
        jax.profiler.stop_trace()  # type: ignore[no-untyped-call]

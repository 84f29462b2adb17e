"""Stages that train: some of their steps can be recorded."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robolift.manifest import Plan
from robolift.stages.stage import StageConfig
from robolift.training.profiling import Profile


class ProfiledConfig(StageConfig):
    """Base of the configuration of a stage that trains."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"profile"})

    profile: int = Field(0, ge=0)
    """Steps to record with the profiler of PyTorch or JAX, after three that are not; see docs/training.md. 0 for none.
    """

    def recording(self, plan: Plan) -> Profile:
        """Return what is recorded of a run, and where to."""
        return Profile(self.profile, plan.profile_uri)

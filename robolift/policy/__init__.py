"""JAX policies that act in chunks, conditioned on an advantage prompt: training, sampling, serving.

XLA reads its environment when the first device is asked for, so it is set here, before any module below imports JAX.
What the user set stays.
"""

from __future__ import annotations

import os

# The threads of XLA's CPU client. It splits matrix products among them, and with the split the order of additions and
# the last bit change; with one thread a policy is the same bytes on any number of cores.
os.environ.setdefault("PJRT_NPROC", "1")

DETERMINISTIC_GPU = "--xla_gpu_deterministic_ops"
if DETERMINISTIC_GPU not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC_GPU}=true".strip()

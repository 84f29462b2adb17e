"""What XLA is told through its environment, for the sake of equal results; needs no JAX.

XLA reads its environment when the first device is asked for. Modules that use JAX import this one, so that it is told
in processes that compute with JAX and in no others: every command knows this package, and what it starts inherits
its environment. What the user set stays.
"""

from __future__ import annotations

import os

# The threads of XLA's CPU client. It splits matrix products among them, and with the split the order of additions and
# the last bit change; with one thread a policy is the same bytes on any number of cores.
os.environ.setdefault("PJRT_NPROC", "1")

DETERMINISTIC_GPU = "--xla_gpu_deterministic_ops"
if DETERMINISTIC_GPU not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC_GPU}=true".strip()

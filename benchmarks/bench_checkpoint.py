"""What saving a training state costs a step: 500 MB of weights, averages and moments.

* ours: `StateWriter`, as the loop of train_value saves: the step waits for a copy to the host's memory; a thread writes
  the file, brings it to the disk (fsync) and publishes it. The stall is the time of the call, once the memory is there;
  `whole_s` is the time until the state could be gone on from.
* at once: the same store with save_in_background off: the step waits for all of it.
* torch.save: one file by PyTorch, neither brought to the disk nor checked.
* safetensors: our writer of such files alone, which is how states and models get to disk.
* Orbax: JAX's state of the same size by the store of a large policy (`ShardedStore`); its stall likewise.

Wall time, since a stall is waiting: the least of three saves each, because other work on the machine only adds to it.
All write to the same disk, on two threads, as a trainer on two cores has them.

Nothing trains meanwhile, and each save waits for the one before: what the writing thread takes from the steps that
follow, a checksum and a copy to the disk on the same cores and the same memory, is in none of these numbers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Benchmark, Goal, Way

TENSORS, SIDE = 120, 1024
"""503 MB of float32."""
SAVES = 3


def least(save: Callable[[int], object], after: Callable[[], object] = lambda: None) -> dict[str, float]:
    """Return the least time in which ``save`` returns, and in which ``after`` it all is done, over some saves."""
    stalls, wholes = [], []
    for step in range(SAVES):
        start = time.perf_counter()
        save(step)
        stalls.append(time.perf_counter() - start)
        after()
        wholes.append(time.perf_counter() - start)
    return {"stall_s": min(stalls), "whole_s": min(wholes)}


def by_writer(*, background: bool) -> dict[str, float]:
    """Save by the writer of the training loop."""
    import torch  # noqa: PLC0415  (each way imports what it measures)

    from robolift.training.checkpoint import ResumeState, StateStore  # noqa: PLC0415
    from robolift.training.distributed import ALONE  # noqa: PLC0415
    from robolift.training.state_writer import StateWriter  # noqa: PLC0415

    tensors = {f"mean.{i}": torch.randn(SIDE, SIDE) for i in range(TENSORS)}

    def state(step: int) -> ResumeState:
        return ResumeState(step=step, weights={}, tensors=tensors, document={})

    with tempfile.TemporaryDirectory() as work:
        writer = StateWriter(StateStore(work), ALONE, background=background, sharded=False)
        with writer:
            writer.reserve(state(0))
            writer.wait()
            return least(lambda step: writer.save(state(step)), writer.wait)


def ours(_: Path) -> dict[str, float]:
    """Save in the background."""
    return by_writer(background=True)


def at_once(_: Path) -> dict[str, float]:
    """Save while training waits."""
    return by_writer(background=False)


def torch_save(_: Path) -> dict[str, float]:
    """Save by PyTorch."""
    import torch  # noqa: PLC0415

    tensors = {str(i): torch.randn(SIDE, SIDE) for i in range(TENSORS)}
    with tempfile.TemporaryDirectory() as work:
        return least(lambda _: torch.save(tensors, Path(work) / "state.pt"))


def safetensors(_: Path) -> dict[str, float]:
    """Save by our writer of safetensors."""
    import numpy as np  # noqa: PLC0415

    from robolift.tensor_files import Spec, writing  # noqa: PLC0415

    rng = np.random.default_rng(0)
    tensors = {str(i): rng.standard_normal((SIDE, SIDE), np.float32) for i in range(TENSORS)}
    specs = {name: Spec.of(tensor) for name, tensor in tensors.items()}

    def save(_: int) -> None:
        with writing(f"{work}/state.safetensors", specs) as write:
            for name, tensor in tensors.items():
                write(name, tensor)

    with tempfile.TemporaryDirectory() as work:
        return least(save)


def orbax(_: Path) -> dict[str, float]:
    """Save by the store of a large policy."""
    import jax.numpy as jnp  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from robolift.policy.pi05.state_store import ShardedStore  # noqa: PLC0415

    rng = np.random.default_rng(0)
    tree = {str(i): jnp.asarray(rng.standard_normal((SIDE, SIDE), np.float32)) for i in range(TENSORS)}
    with tempfile.TemporaryDirectory() as work:
        store = ShardedStore(work)
        try:
            return least(lambda step: store.save(tree, {}, step=step), store.wait)
        finally:
            store.close()


BENCHMARK = Benchmark(
    name="checkpoint",
    ways=(
        Way("ours", ours, threads=2),
        Way("torch.save", torch_save, threads=2),
        Way("at once", at_once, threads=2),
        Way("safetensors", safetensors, threads=2),
        Way("Orbax", orbax, threads=2),
    ),
    goals=(
        Goal("stall of ours / torch.save", over=("ours", "torch.save"), of="stall_s", at_most=0.2),
        Goal("safetensors / torch.save", over=("safetensors", "torch.save"), of="stall_s"),
        Goal("stall of Orbax / torch.save", over=("Orbax", "torch.save"), of="stall_s"),
    ),
)

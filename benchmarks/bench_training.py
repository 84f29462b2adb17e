"""What a step of training makes of the machine: how near it is to bare matrix products, and what processes add.

* step: the product's step on a batch that lies in memory: forward, backward, clipping, AdamW, moving average
  (`loop.Trainer`, `learning.make_step`). The value model is that of preset siglip_gemma with towers of width 256 and
  depth 4, three cameras of 96 px, 64 patches each, 201 atoms; the policy is preset tiny with layers of 512 and chunks
  of 50 actions. `share` is the rate of their matrix products over that of bare products of 1024 x 1024 in the same
  type, measured in turn in the same process: everything that is no matrix product only lowers it. PyTorch's are counted
  by its flop counter, JAX's are 4 (first layers, which pass no gradient on) or 6 times rows times weights.
* switches: the same step with bfloat16 towers, and the optimizer alone with and without its fused kernel; `compiled`
  only on request (ROBOLIFT_COMPILE=1), since it takes minutes.
* processes: the product's loop with gradients averaged by gloo, each process the same rows a step; two free cores are
  needed.

CPU time, on one thread a process; the share of a step and the samples a second of processes are the medians of a run.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Goal, Way

WIDTH, DEPTH, CAMERAS, SIDE_PX, PATCH_PX = 256, 4, 3, 96, 12
ROWS, STEPS, PROCESS_STEPS = 8, 5, 8
PRODUCT = 1024
POLICY_ROWS, OBSERVATION, HORIZON, ACTION, LAYER = 256, 256, 50, 14, 512


def value_network() -> Any:
    """Return the value model."""
    import torch  # noqa: PLC0415  (JAX's ways do without)

    from robolift.value_model.build import build  # noqa: PLC0415
    from robolift.value_model.network import ModelShape  # noqa: PLC0415
    from robolift.value_model.presets import siglip_gemma_dummy  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    preset = siglip_gemma_dummy()
    size = {"width": WIDTH, "depth": DEPTH, "heads": WIDTH // 64, "mlp_width": 4 * WIDTH}
    config = replace(
        preset,
        vision=replace(preset.vision, **size, patch_px=PATCH_PX, image_px=SIDE_PX),
        language=replace(preset.language, **size, kv_heads=1, head_width=64),
        head_widths=(WIDTH,),
    )
    shape = ModelShape(num_cameras=CAMERAS, state_dim=0, tasks=("task",), prompts=((2, 5, 6, 7),))
    return build(config, shape)


class Resident:
    """The loss of :class:`robolift.value_model.objective.ValueObjective` on rows that lie in memory."""

    def __init__(self, model: Any, precision: str = "float32") -> None:
        import torch  # noqa: PLC0415

        self.model, self.precision = model, precision
        self.images = torch.randint(0, 256, (ROWS, CAMERAS, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
        self.state, self.task = torch.zeros(ROWS, 1, 0), torch.zeros(ROWS, dtype=torch.int64)
        self.target = torch.rand(ROWS) - 1

    def losses(self, _step: int, _part: int = 0) -> dict[str, Any]:
        """Return the loss."""
        with self.model.autocast(self.precision):
            features = self.model.encode(self.images).view(ROWS, 1, -1)
            logits = self.model.value_logits(features, self.state, self.task)
        return {"loss": self.model.head.loss_rows(logits, self.target).mean()}

    def evaluate(self) -> dict[str, float | None]:
        """Return no measures."""
        return {}


def trainer(folder: str, world: Any = None, precision: str = "float32", **options: Any) -> Any:
    """Return the product's trainer of the value model."""
    from robolift.training.checkpoint import StateStore  # noqa: PLC0415
    from robolift.training.distributed import ALONE  # noqa: PLC0415
    from robolift.training.loop import LoopOptions, Trainer  # noqa: PLC0415

    settings = LoopOptions(
        steps=1000,
        peak_learning_rate=1e-4,
        warmup_steps=10,
        final_learning_rate_fraction=0.1,
        weight_decay=0.1,
        gradient_clip=1.0,
        ema_decay=0.99,
        log_every=1000,
        eval_every=0,
        save_every=1000,
        select="last",
        **options,
    )
    model = value_network()
    return Trainer(model, Resident(model, precision), settings, world or ALONE, StateStore(folder))


def cpu_of(work: Callable[[], object]) -> float:
    """Return the CPU seconds of ``work``."""
    start = time.process_time()
    work()
    return time.process_time() - start


def shared(step: Callable[[], object], product: Callable[[], object], operations: float) -> dict[str, float]:
    """Return the CPU time of a step, and the share of its matrix products' rate in that of ``product``."""
    step(), step(), product()
    steps, products = zip(*((cpu_of(step), cpu_of(product)) for _ in range(STEPS)), strict=True)
    shares = [operations / one / (2 * PRODUCT**3 / other) for one, other in zip(steps, products, strict=True)]
    return {"cpu_s": statistics.median(steps), "share": statistics.median(shares)}


def value_step(precision: str) -> dict[str, float]:
    """Measure a step of the value model."""
    import torch  # noqa: PLC0415
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as work:
        made, calm = trainer(work, precision=precision), threading.Event()
        with FlopCounterMode(display=False) as counter:
            made.advance(calm)
        one, other = (torch.randn(PRODUCT, PRODUCT, dtype=getattr(torch, precision)) for _ in range(2))
        return shared(lambda: made.advance(calm), lambda: one @ other, counter.get_total_flops())


def torch_step(_: Path) -> dict[str, float]:
    """Measure a step in float32."""
    return value_step("float32")


def torch_bfloat16(_: Path) -> dict[str, float]:
    """Measure a step with towers in bfloat16."""
    return value_step("bfloat16")


def jax_step(_: Path) -> dict[str, float]:
    """Measure a step of the policy."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from robolift.policy import learning, loop  # noqa: PLC0415
    from robolift.policy.loss import Batch  # noqa: PLC0415
    from robolift.policy.model import PolicyShape  # noqa: PLC0415
    from robolift.policy.presets import tiny  # noqa: PLC0415
    from robolift.policy.recipe import Recipe  # noqa: PLC0415

    config = replace(tiny(), hidden_widths=(LAYER,) * 3)
    shape = PolicyShape(
        observation_dim=OBSERVATION, num_prompts=3, action_horizon=HORIZON, action_dim=ACTION, objective="flow"
    )
    recipe = Recipe(batch_size=POLICY_ROWS)
    optimizer = learning.make_optimizer(recipe)
    state = loop.initial_state(config, shape, recipe, optimizer)
    step = jax.jit(loop.make_step(shape, recipe, optimizer, jnp.arange(3)), donate_argnums=0)
    rng = np.random.default_rng(0)
    batch = Batch(
        observation=jnp.asarray(rng.standard_normal((POLICY_ROWS, OBSERVATION)), jnp.float32),
        prompt=jnp.zeros(POLICY_ROWS, jnp.int32),
        actions=jnp.asarray(rng.standard_normal((POLICY_ROWS, HORIZON, ACTION)), jnp.float32),
        real=jnp.ones((POLICY_ROWS, HORIZON)),
        weight=jnp.ones(POLICY_ROWS),
    )
    operations = POLICY_ROWS * policy_operations(state.params)
    states = [state]
    matrices = [jnp.asarray(rng.standard_normal((PRODUCT, PRODUCT)), jnp.float32) for _ in range(2)]
    multiply = jax.jit(jnp.matmul)

    def advance() -> None:
        states[0] = jax.block_until_ready(step(states[0], batch))

    return shared(advance, lambda: jax.block_until_ready(multiply(*matrices)), operations)


def policy_operations(params: Mapping[str, Any]) -> int:
    """Return the multiplications and additions of the matrix products of one row's forward and backward pass."""
    first = [params[name]["kernel"].size for name in ("chunk", "time")]
    # Of the prefix the learned prompt gets a gradient, the observation does not.
    later = [params["output"]["kernel"].size, *(layer["kernel"].size for layer in params["hidden"])]
    return 4 * (sum(first) + params["prefix"]["kernel"].size) + 6 * sum(later)


def optimizer_alone(*, fused: bool) -> dict[str, float]:
    """Measure the optimizer of the value model."""
    import torch  # noqa: PLC0415

    from robolift.training.optim import AdamW  # noqa: PLC0415

    model = value_network()
    optimizer = AdamW(model, weight_decay=0.1, fused=fused)
    gradients = [torch.randn_like(parameter) for parameter in model.parameters()]
    taken = []
    for _ in range(2 + STEPS):
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        taken.append(cpu_of(lambda: optimizer.update(1e-4, max_norm=1.0)))
    return {"cpu_s": statistics.median(taken[2:])}


def plain_optimizer(_: Path) -> dict[str, float]:
    """Update operation by operation."""
    return optimizer_alone(fused=False)


def fused_optimizer(_: Path) -> dict[str, float]:
    """Update by one kernel a weight."""
    return optimizer_alone(fused=True)


def compiled_step(_: Path) -> dict[str, float]:
    """Measure a step of the compiled value model."""
    from robolift.value_model.assemble import compile_methods  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as work:
        made, calm = trainer(work), threading.Event()
        compile_methods(made.model)
        start = time.process_time()
        made.advance(calm)
        warm_up = time.process_time() - start
        return {
            "cpu_s": statistics.median(cpu_of(lambda: made.advance(calm)) for _ in range(STEPS)),
            "warm_up_cpu_s": warm_up,
        }


def processes(number: int) -> dict[str, float]:
    """Measure the loop in some processes."""
    from robolift.training import distributed  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as work:
        error_file = Path(work) / "error.json"
        distributed.launch("benchmarks.bench_training", [work], num_processes=number, error_file=error_file)
        return dict(json.loads((Path(work) / "found.json").read_text()))


def worker(work: Path) -> None:
    """Do the part of one of the processes."""
    import torch  # noqa: PLC0415

    from robolift.training import distributed  # noqa: PLC0415

    distributed.die_with_parent()
    world = distributed.launched_world()
    assert world is not None
    with distributed.connected(world, torch.device("cpu")):
        made, calm, walls = trainer(str(work), world), threading.Event(), []
        made.advance(calm)
        start = time.process_time()
        for _ in range(PROCESS_STEPS):
            begun = time.perf_counter()
            made.advance(calm)
            walls.append(time.perf_counter() - begun)
        cpu_s = distributed.sum_over(world, torch.tensor(time.process_time() - start, dtype=torch.float64)).item()
    rows = ROWS * world.size
    found = {"samples_per_s": rows / statistics.median(walls), "cpu_s": cpu_s / (rows * PROCESS_STEPS)}
    if world.is_main:
        (work / "found.json").write_text(json.dumps(found))


def one_process(_: Path) -> dict[str, float]:
    """Train alone."""
    return processes(1)


def two_processes(_: Path) -> dict[str, float]:
    """Train in two."""
    return processes(2)


BENCHMARKS = (
    Benchmark(
        name="training_step",
        ways=(Way("torch", torch_step), Way("torch bfloat16", torch_bfloat16), Way("JAX", jax_step)),
        goals=(
            Goal("torch: share of the matrix-product rate", over=("torch",), of="share", at_least=0.55),
            Goal("JAX: share of the matrix-product rate", over=("JAX",), of="share", at_least=0.45),
            Goal("CPU of float32 / bfloat16", over=("torch", "torch bfloat16"), of="cpu_s"),
        ),
    ),
    Benchmark(
        name="training_switches",
        ways=(
            Way("plain", plain_optimizer),
            Way("fused", fused_optimizer),
            Way("compiled", compiled_step, needs=("ROBOLIFT_COMPILE",)),
        ),
        goals=(Goal("optimizer: CPU of plain / fused", over=("plain", "fused"), of="cpu_s"),),
    ),
    Benchmark(
        name="training_processes",
        ways=(Way("one", one_process), Way("two", two_processes)),
        goals=(
            Goal("samples per second, two / one", over=("two", "one"), of="samples_per_s", at_least=1.6),
            Goal("CPU per sample, two / one", over=("two", "one"), of="cpu_s", at_most=1.1),
        ),
    ),
)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))

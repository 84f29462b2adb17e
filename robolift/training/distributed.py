"""Data parallelism over processes: who this process is, how they are started, and the few things they exchange.

Gradients are averaged in one flat buffer of fixed layout rather than by DistributedDataParallel: DDP rebuilds its
buckets after the first step, so with three or more processes a resumed run would add in another order than an
uninterrupted one and the two would differ in the last bit.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from robolift.errors import EXIT_DATA, EXIT_TERMINATED, EXIT_USAGE, DataError, RoboliftError, UsageError
from robolift.training.stopping import TrainingStoppedError

PR_SET_PDEATHSIG = 1
TIMEOUT = timedelta(minutes=60)
DEFAULT_PORT = 12345
"""Where processes meet when kai0's variables name no port."""
MEETING_TIMEOUT_S = 86_400
"""Pods start hours apart where GPUs are scarce; torchrun gives up after 15 minutes. A job has a deadline anyway."""
ERROR_FILE_VARIABLE = "ROBOLIFT_ERROR_FILE"


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: 0..size-1; rank 0 writes what is written.
        size: Number of processes.
        local_rank: Number of this process on its machine.
        node: Number of the machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


ALONE = World()


def torchrun_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return torchrun's own variables for a machine that was given kai0's, nothing for any other.

    kai0's launcher says WORLD_SIZE for the number of machines, RANK for the number of this one and NPROC_PER_NODE for
    the processes on each, with MASTER_ADDR and MASTER_PORT (``train_estimator.sh``, by the same defaults). Between
    processes the first two mean something else, so NPROC_PER_NODE is what tells this convention from a PyTorchJob's,
    and the variables of torchrun win where they are set.

    Raises:
        UsageError: If a number is not one, or RANK is not below WORLD_SIZE.
    """
    if "NPROC_PER_NODE" not in environ or {"TORCHELASTIC_RUN_ID", "PET_NNODES"} & environ.keys():
        return {}
    nodes, processes = _count(environ, "WORLD_SIZE", "1"), _count(environ, "NPROC_PER_NODE", "1")
    node = _count(environ, "RANK", "0")
    port = _count(environ, "MASTER_PORT", str(DEFAULT_PORT))
    if nodes < 1 or processes < 1 or node >= nodes:
        raise UsageError(
            f"machine RANK={node} of WORLD_SIZE={nodes} with NPROC_PER_NODE={processes}; "
            "expected RANK below WORLD_SIZE, both counting machines, and at least one process on each"
        )
    return {
        "PET_NNODES": str(nodes),
        "PET_NODE_RANK": str(node),
        "PET_NPROC_PER_NODE": str(processes),
        "PET_MASTER_ADDR": environ.get("MASTER_ADDR", "127.0.0.1"),
        "PET_MASTER_PORT": str(port),
    }


def _count(environ: Mapping[str, str], name: str, default: str) -> int:
    text = environ.get(name, default)
    if not text.isdecimal():
        raise UsageError(f"{name} is {text!r}, expected a whole number")
    return int(text)


def by_machines(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process stands for a whole machine of a job and has yet to start torchrun on it."""
    return "TORCHELASTIC_RUN_ID" not in environ and "PET_NNODES" in {**environ, **torchrun_settings(environ)}


def launched_world(environ: Mapping[str, str] = os.environ) -> World | None:
    """Return who this process is when torchrun, or a PyTorchJob without torchrun, started it; None otherwise.

    A missing LOCAL_RANK means one process a machine, so it is 0 and never the global rank.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in environ
    by_job = not by_machines(environ) and {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environ.keys()
    if not (by_torchrun or by_job):
        return None
    rank = int(environ["RANK"])
    local_rank = int(environ.get("LOCAL_RANK", "0"))
    return World(rank, int(environ["WORLD_SIZE"]), local_rank, int(environ.get("GROUP_RANK", rank)))


def publishes(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process is the one of its job that publishes the output; the others wait for it."""
    world = launched_world(environ)
    return world.is_main if world else int({**environ, **torchrun_settings(environ)}.get("PET_NODE_RANK", "0")) == 0


@contextmanager
def connected(world: World, device: torch.device) -> Iterator[None]:
    """Join the other processes for the length of the block; nothing happens when there are none."""
    if world.size == 1:
        yield
        return
    os.environ.setdefault("MASTER_PORT", str(DEFAULT_PORT))  # torchrun and an operator always set it
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def connections() -> dist.ProcessGroup:
    """Join all processes once more, over the host's memory, for what must not come between the messages of training.

    Every process has to call it.
    """
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=TIMEOUT))


def average_gradients(parameters: Sequence[torch.nn.Parameter], world: World, *, stop: bool) -> torch.Tensor:
    """Replace each gradient by its mean over the processes, and tell whether any of them was asked to stop.

    The request to stop rides along with the gradients, so that all processes stop after the same step.

    Returns:
        A single bool where the gradients are: who looks at it waits for the device.
    """
    if world.size == 1:
        return torch.tensor(stop)
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients] + [gradients[0].new_full((1,), float(stop))])
    dist.all_reduce(flat)
    asked = flat[-1] > 0
    flat /= world.size
    for gradient, mean in zip(gradients, torch.split(flat[:-1], [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    return asked


def any_of(world: World, device: torch.device, *, stop: bool) -> torch.Tensor:
    """Tell likewise whether any process was asked to stop, where gradients are averaged by other means."""
    return sum_over(world, torch.tensor(float(stop), device=device)) > 0


def sum_over(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``tensor`` over the processes, in place."""
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def share(world: World, value: Any) -> Any:
    """Return rank 0's ``value`` in every process; the value is anything that pickles."""
    if world.size == 1:
        return value
    box = [value if world.is_main else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def collect(world: World, value: Any) -> list[Any]:
    """Return every process's ``value``, by rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that ``kill -9`` of a stage leaves no process training."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def launch(module: str, arguments: Sequence[str], *, num_processes: int, error_file: Path) -> None:
    """Run ``python -m module arguments`` in several processes by torchrun and wait for the end.

    On one machine the processes find each other by themselves; inside a PyTorchJob or TrainJob the operator's PET_*
    variables, or kai0's (:func:`torchrun_settings`), say how many machines there are and where they meet.

    Args:
        module: Module with a ``main`` guarded by :func:`reporting_errors`.
        arguments: Its command line.
        num_processes: Processes in all; checked by the workers against what was really started.
        error_file: Where a worker leaves the error that ended it.

    Raises:
        UsageError: If the variables ask for another number of processes, or as raised in a worker; so are the next two.
        DataError: See above.
        RuntimeError: If a worker failed by a defect.
        TrainingStoppedError: If a process was stopped or lost.
    """
    settings = torchrun_settings()
    asked = int(settings.get("PET_NNODES", num_processes)) * int(settings.get("PET_NPROC_PER_NODE", 1))
    if asked != num_processes:
        raise UsageError(
            f"WORLD_SIZE machines with NPROC_PER_NODE processes each are {asked} processes, and num_processes is "
            f"{num_processes}; it is part of what identifies the result, so set it to the number of the job's processes"
        )
    local = [] if by_machines() else ["--standalone", f"--nproc-per-node={num_processes}"]
    command = [sys.executable, "-m", "robolift.training.agent", *local, "-m", module, *arguments]
    environ = {**os.environ, **settings, ERROR_FILE_VARIABLE: str(error_file)}
    # torchrun warns and sets this itself otherwise; the stage's own setting decides inside the workers.
    environ.setdefault("OMP_NUM_THREADS", "1")
    environ.setdefault("PET_RDZV_CONF", f"timeout={MEETING_TIMEOUT_S}")
    agent = subprocess.Popen(command, env=environ)
    try:
        code = agent.wait()
    finally:
        if agent.poll() is None:
            agent.terminate()
            agent.wait()
    if code:
        raise _failure(error_file, code)


def _failure(error_file: Path, code: int) -> Exception:
    if not error_file.exists():
        return TrainingStoppedError(
            f"a training process was stopped or lost (torchrun ended with {code}); run again to resume"
        )
    report = json.loads(error_file.read_text(encoding="utf-8"))
    if report["exit_code"] == EXIT_USAGE:
        return UsageError(report["text"])
    if report["exit_code"] == EXIT_DATA:
        return DataError(report["text"])
    if report["exit_code"] == EXIT_TERMINATED:
        return TrainingStoppedError(report["text"])
    return RuntimeError(f"a training process failed:\n{report['text']}")


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Leave the error that ends this worker where its launcher reads it; the first of several workers wins.

    Losing the connection to another process is not reported: the process that was lost is the cause, not this one.
    """
    try:
        yield
    except Exception as error:
        target = os.environ.get(ERROR_FILE_VARIABLE)
        lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
        if target and not lost:
            code = error.exit_code if isinstance(error, RoboliftError) else None
            text = str(error) if code else f"{type(error).__name__}: {error}"
            temporary = Path(f"{target}.{os.getpid()}")
            temporary.write_text(json.dumps({"exit_code": code, "text": text}), encoding="utf-8")
            try:
                os.link(temporary, target)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        raise

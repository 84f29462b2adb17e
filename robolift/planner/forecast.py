"""What a pipeline costs on so many hours of a robot: measured costs times how much there is to do.

A GPU's speed was not measured. It is a number that the caller states, or FLOPs / (peak x MFU) with FLOPs as
:mod:`robolift.planner.plan` counts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from robolift.planner import plan
from robolift.planner.costs import Costs, Counts, evaluate
from robolift.planner.network import Network
from robolift.planner.recordings import Recordings
from robolift.planner.steps import MOST_SHARDS, PARALLELISM, PIPELINES, PODS_OF_A_TASK, UNMEASURED, Step
from robolift.planner.workload import WINDOW_BYTES, counted

HOUR = 3600.0
PART_BYTES = 50 << 20
"""Part of an upload (s3fs, calculate_chunksize), of files of at least two."""
DECODED_PER_LOOK = 2
"""Pictures decoded to find one: LeRobot's videos have a keyframe every second frame."""
RGB = 3


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training.

    Attributes:
        steps: Optimizer steps.
        batch: Rows of each.
        network: On GPUs; None for the small network, which computes on a CPU.
        image_side: Pixels that pictures are scaled to.
    """

    steps: int
    batch: int
    network: Network | None = None
    image_side: int = 96


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is not known of data or measurements.

    Attributes:
        value: Training of the value model.
        policy: Training of the policy.
        frame_flops: FLOPs of the value model for a frame, each picture encoded once; 0 for the small model.
        encodes_per_s: Pictures that one GPU encodes in a second; None: by FLOPs.
        gpus: That train.
        tflops: Peak of one, 10^12 FLOPs a second.
        mfu: Share of the peak that is reached.
        num_shards: Shards of a prediction; None: as many as make shards of ``shard_minutes``, at most 64.
        shard_minutes: How long a shard should take.
        parallelism: Shards at a time.
        decoders: Processes that decode for one GPU.
        pod_start_s: From asking for a pod to its first instruction.
    """

    value: Training
    policy: Training
    frame_flops: float = 0.0
    encodes_per_s: float | None = None
    gpus: int = 8
    tflops: float = 989.0
    mfu: float = 0.35
    num_shards: int | None = None
    shard_minutes: float = 10.0
    parallelism: int = PARALLELISM
    decoders: int = 1
    pod_start_s: float = 0.0

    def frame_gpu_s(self, cameras: int) -> float:
        """Return the seconds of a GPU for one frame's prediction, 0 for the small model."""
        if self.value.network is None:
            return 0.0
        if self.encodes_per_s is not None:
            return cameras / self.encodes_per_s
        return self.frame_flops / (self.tflops * 1e12 * self.mfu)

    def step_s(self, training: Training) -> float:
        """Return the seconds of a step on the GPUs; of a network that there is."""
        assert training.network is not None
        layout = plan.Layout(devices=self.gpus, fsdp=1, remat=True, memory_gib=1)
        return plan.step_seconds(training.network, layout, training.batch, tflops=self.tflops, mfu=self.mfu)


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """What one stage takes, all its pods together.

    Attributes:
        step: Which.
        frames: That it reads.
        shards: Parts that the work is cut into.
        pods: With those of Kubeflow, and of a job.
        cpu_s: CPU seconds.
        gpu_s: Seconds that GPUs are held.
        wall_s: From its start to its end.
        memory_bytes: Of its largest pod.
        scratch_bytes: Of that pod's disk.
        written_bytes: Of its outputs.
        read_bytes: That an object store sends.
        requests: Of an object store, by operation.
    """

    step: Step
    frames: float
    shards: int
    pods: int
    cpu_s: float
    gpu_s: float
    wall_s: float
    memory_bytes: float
    scratch_bytes: float
    written_bytes: float
    read_bytes: float
    requests: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a pipeline takes on a dataset.

    Attributes:
        pipeline: Which.
        recordings: How much.
        stages: The dearest first: by seconds of GPUs, then of CPUs.
        other_pods: Of the steps whose cost doesn't depend on how much was recorded.
        listed_bytes: Of the list that an import keeps of the files of its source.
    """

    pipeline: str
    recordings: Recordings
    stages: tuple[StageForecast, ...]
    other_pods: int
    listed_bytes: float

    def total(self, name: str) -> float:
        """Return a number of all stages together; ``wall_s`` as if each waited for the one before it."""
        return float(sum(getattr(stage, name) for stage in self.stages))

    def requests(self) -> dict[str, float]:
        """Return the requests of all stages, by operation."""
        names = dict.fromkeys(name for stage in self.stages for name in stage.requests)
        return {name: sum(stage.requests.get(name, 0.0) for stage in self.stages) for name in names}


def forecast(pipeline: str, recordings: Recordings, costs: Costs, assumed: Assumptions) -> Forecast:
    """Return what ``pipeline`` takes on ``recordings``."""
    model = _Model(recordings, costs, assumed)
    stages = [model.stage(step) for step in PIPELINES[pipeline] if step.stage in costs.stages]
    listed, counts = costs.stages["import_dataset"].written_bytes, counted(recordings)
    stages.sort(key=lambda stage: (-stage.gpu_s, -stage.cpu_s))
    return Forecast(
        pipeline=pipeline,
        recordings=recordings,
        stages=tuple(stages),
        other_pods=PODS_OF_A_TASK * len(UNMEASURED[pipeline]),
        listed_bytes=evaluate({name: listed.get(name, 0.0) for name in ("data_file", "video_file")}, counts),
    )


@dataclass(frozen=True)
class _Model:
    recordings: Recordings
    costs: Costs
    assumed: Assumptions

    def stage(self, step: Step) -> StageForecast:
        if step.kind == "shards":
            return self._sharded(step)
        if step.kind == "training":
            return self._trained(step)
        cost = self.costs.stages[step.stage]
        cpu_s = evaluate(cost.cpu_s, counted(self.recordings))
        return self._forecast(step, counted(self.recordings), cpu_s=cpu_s, wall_s=cpu_s + self.assumed.pod_start_s)

    def _sharded(self, step: Step) -> StageForecast:
        """Each shard opens the dataset anew: what a start costs, costs it as often."""
        counts = counted(self.recordings)
        cost = self.costs.stages[step.stage]
        start_s = cost.cpu_s.get("start", 0.0)
        gpu_s = self.recordings.frames * self.assumed.frame_gpu_s(len(self.recordings.cameras))
        if gpu_s:  # decoding goes on while the GPU computes
            cpu_s = evaluate(self.costs.decoding, counts)
            work_s = max(cpu_s / self.assumed.decoders, gpu_s)
        else:
            cpu_s = work_s = evaluate({**cost.cpu_s, "start": 0.0}, counts)
        shards = self._num_shards(work_s)
        one_s = start_s + work_s / shards + self.assumed.pod_start_s
        found = self._forecast(
            step,
            {**counts, "start": shards},
            cpu_s=start_s * shards + cpu_s,
            wall_s=math.ceil(shards / self.assumed.parallelism) * one_s,
        )
        memory = evaluate(cost.memory_bytes, counts)
        held_s = shards * one_s if gpu_s else 0.0
        return replace(found, shards=shards, pods=PODS_OF_A_TASK * shards, gpu_s=held_s, memory_bytes=memory)

    def _num_shards(self, work_s: float) -> int:
        if self.assumed.num_shards is not None:
            return self.assumed.num_shards
        wanted = math.ceil(work_s / (60 * self.assumed.shard_minutes))
        return max(1, min(MOST_SHARDS, wanted, int(self.recordings.episodes)))

    def _trained(self, step: Step) -> StageForecast:
        training = self.assumed.value if step.stage == "train_value" else self.assumed.policy
        rows = training.steps * training.batch
        counts = counted(self.recordings, step=training.steps, row=rows)
        cost = self.costs.stages[step.stage]
        packs = step.stage == "train_value" and "pack_frames" not in self.costs.stages
        scratch = self.recordings.pictures * training.image_side**2 * RGB if packs else 0.0
        if training.network is None:
            cpu_s = wall_s = evaluate(cost.cpu_s, counts)
            gpu_s = 0.0
        else:
            start_s, decode_s = cost.cpu_s.get("start", 0.0), self._decoded_s(step, rows, packs=packs)
            cpu_s = start_s + decode_s
            computed_s = training.steps * self.assumed.step_s(training)
            decode_s /= self.assumed.decoders * (1 if packs else self.assumed.gpus)
            wall_s = start_s + (decode_s + computed_s if packs else max(decode_s, computed_s))
            gpu_s = self.assumed.gpus * wall_s
        found = self._forecast(step, counts, cpu_s=cpu_s, wall_s=wall_s + 2 * self.assumed.pod_start_s)
        # The step's own two pods, and one that trains: the launcher only watches it.
        return replace(found, pods=PODS_OF_A_TASK + 1, gpu_s=gpu_s, scratch_bytes=scratch)

    def _decoded_s(self, step: Step, rows: float, *, packs: bool) -> float:
        """Return the CPU seconds of decoding: every picture once to pack them, else those that are looked at."""
        whole = evaluate(self.costs.decoding, counted(self.recordings))
        if packs:
            return whole
        if step.stage == "train_value":  # from the packed pictures
            return 0.0
        return whole / self.recordings.frames * rows * DECODED_PER_LOOK

    def _forecast(self, step: Step, counts: Counts, *, cpu_s: float, wall_s: float) -> StageForecast:
        cost = self.costs.stages[step.stage]
        written = evaluate(cost.written_bytes, counts)
        requests = {name: evaluate(form, counts) for name, form in cost.requests.items()}
        read = evaluate(cost.read_bytes, counts)
        # A large file comes in windows and goes in parts, whatever was counted on small ones.
        if requests:
            requests["GET"] = max(requests.get("GET", 0.0), read / WINDOW_BYTES)
            requests["PUT"] = requests.get("PUT", 0.0) + written // PART_BYTES
        return StageForecast(
            step=step,
            frames=self.recordings.frames,
            shards=1,
            pods=PODS_OF_A_TASK,
            cpu_s=cpu_s,
            gpu_s=0.0,
            wall_s=wall_s,
            memory_bytes=evaluate(cost.memory_bytes, counts),
            scratch_bytes=0.0,
            written_bytes=written,
            read_bytes=read,
            requests=requests,
        )

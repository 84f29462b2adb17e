"""What a pipeline costs on so many hours of a robot: measured costs times how much there is to do.

A GPU's speed was not measured. It is a number that the caller states, or FLOPs / (peak x MFU) with FLOPs as
:mod:`robolift.planner.plan` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from robolift.planner import plan
from robolift.planner.costs import Costs, Counts, evaluate
from robolift.planner.network import Network
from robolift.planner.recordings import Recordings
from robolift.planner.steps import (
    FORMATS,
    GRAPHS,
    MOST_SHARDS,
    PARALLELISM,
    PIPELINES,
    PODS_OF_A_PART,
    PODS_OF_A_TASK,
    UNMEASURED,
    Step,
    runs,
)
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
        padded: Whether they keep their shape.
        looks: Frames that a row shows; 0 where the network sees no pictures.
    """

    steps: int
    batch: int
    network: Network | None = None
    image_side: int = 96
    padded: bool = False
    looks: int = 1


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
        readers: Processes that read pictures for one GPU.
        pod_start_s: From asking for a pod to its first instruction.
        baselines: Further policies that are trained to compare with.
        frame_format: What pictures are packed as; ``none``: each stage decodes what it looks at.
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
    readers: int = 1
    pod_start_s: float = 0.0
    baselines: int = 1
    frame_format: str = "raw"

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
    """What one stage takes, all its runs and pods together.

    Attributes:
        step: Which.
        runs: How often the pipeline runs it, one after the other.
        frames: That each reads.
        shards: Parts that a run's work is cut into.
        pods: With those of Kubeflow, and of a job.
        cpu_s: CPU seconds.
        gpu_s: Seconds that GPUs are held.
        wall_s: From start to end, the runs added up.
        memory_bytes: Of its largest pod.
        scratch_bytes: Of that pod's disk.
        written_bytes: Of its outputs.
        read_bytes: That an object store sends.
        requests: Of an object store, by operation.
    """

    step: Step
    runs: int
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
        other_pods: Of the steps whose cost doesn't depend on how much was recorded, and of graphs.
        unmeasured: Stages that belong here and whose costs are not known.
        listed_bytes: Of the list that an import keeps of the files of its source.
    """

    pipeline: str
    recordings: Recordings
    stages: tuple[StageForecast, ...]
    other_pods: int
    unmeasured: tuple[str, ...]
    listed_bytes: float

    def total(self, name: str) -> float:
        """Return a number of all stages together; ``wall_s`` as if each waited for the one before it."""
        return float(sum(getattr(stage, name) for stage in self.stages))

    def requests(self) -> dict[str, float]:
        """Return the requests of all stages, by operation."""
        names = dict.fromkeys(name for stage in self.stages for name in stage.requests)
        return {name: sum(stage.requests.get(name, 0.0) for stage in self.stages) for name in names}


def forecast(pipeline: str, recordings: Recordings, costs: Costs, assumed: Assumptions) -> Forecast:
    """Return what ``pipeline`` takes on ``recordings``; of stage_advantage on as many labelled ones besides."""
    model = _Model(pipeline, recordings, costs, assumed)
    steps = PIPELINES[pipeline]
    stages = [model.stage(step) for step in steps if step.stage in costs.stages]
    listed, counts = costs.stages["import_dataset"].written_bytes, counted(recordings)
    stages.sort(key=lambda stage: (-stage.gpu_s, -stage.cpu_s))
    tasks = sum(UNMEASURED[pipeline].values())
    return Forecast(
        pipeline=pipeline,
        recordings=recordings,
        stages=tuple(stages),
        other_pods=PODS_OF_A_TASK * tasks + PODS_OF_A_PART * assumed.baselines + GRAPHS[pipeline],
        unmeasured=tuple(step.stage for step in steps if step.stage not in costs.stages),
        listed_bytes=evaluate({name: listed.get(name, 0.0) for name in ("data_file", "video_file")}, counts),
    )


def together(found: Sequence[StageForecast]) -> StageForecast:
    """Return several runs of a stage as one: memory and disk are of the largest, the rest adds up."""
    added = ("runs", "pods", "cpu_s", "gpu_s", "wall_s", "written_bytes", "read_bytes")
    names = dict.fromkeys(name for one in found for name in one.requests)
    return replace(
        found[0],
        **{name: sum(getattr(one, name) for one in found) for name in added},
        **{name: max(getattr(one, name) for one in found) for name in ("memory_bytes", "scratch_bytes")},
        requests={name: sum(one.requests.get(name, 0.0) for one in found) for name in names},
    )


@dataclass(frozen=True)
class _Model:
    pipeline: str
    recordings: Recordings
    costs: Costs
    assumed: Assumptions

    @property
    def packed(self) -> bool:
        return self.assumed.frame_format != "none" and "pack_frames" in self.costs.stages

    def stage(self, step: Step) -> StageForecast:
        number = runs(self.pipeline, step, self.assumed.baselines)
        if step.kind == "packing":
            return together([self._packing(step, view) for view in self._views(number)])
        found = {"shards": self._sharded, "training": self._trained, "task": self._task}[step.kind](step)
        return together([found] * number)

    def _task(self, step: Step) -> StageForecast:
        counts = counted(self.recordings)
        cpu_s = evaluate(self.costs.stages[step.stage].cpu_s, counts)
        return self._forecast(step, counts, cpu_s=cpu_s, wall_s=cpu_s + self.assumed.pod_start_s)

    def _views(self, number: int) -> list[Training | None]:
        """Return who looks at each packing's pictures; None where nothing is packed or the packing is there."""
        value, policy = self.assumed.value, self.assumed.policy
        alike = (value.image_side, value.padded) == (policy.image_side, policy.padded)
        views = [*[value] * (number - 1), None if alike or not policy.looks else policy]
        return views if self.packed else [None] * number

    def _packing(self, step: Step, view: Training | None) -> StageForecast:
        """One process a core decodes; the pictures lie on the pod's disk before they are uploaded."""
        cost, counts = self.costs.stages[step.stage], counted(self.recordings)
        if view is None:
            counts = {"start": 1.0}
        start_s, cpu_s = cost.cpu_s.get("start", 0.0), evaluate(cost.cpu_s, counts)
        kept = 0.0
        if view is not None:
            kept = self._packed_bytes(view, self.recordings.pictures)
        wall_s = start_s + (cpu_s - start_s) / step.cores + self.assumed.pod_start_s
        found = self._forecast(step, counts, cpu_s=cpu_s, wall_s=wall_s, written=kept)
        return replace(found, scratch_bytes=kept)

    def _packed_bytes(self, view: Training, pictures: float) -> float:
        share = FORMATS[self.assumed.frame_format] if self.packed else 0.0
        return pictures * view.image_side**2 * RGB * share

    def _read_s(self, pictures: float) -> float:
        """Return the CPU seconds of reading pictures that are packed."""
        return evaluate(self.costs.reading, {"picture": pictures})

    def _decode_s(self) -> float:
        """Return the CPU seconds of decoding every picture once."""
        return evaluate(self.costs.decoding, counted(self.recordings))

    def _sharded(self, step: Step) -> StageForecast:
        """Each shard opens the dataset anew: what a start costs, costs it as often."""
        counts = counted(self.recordings, packed_byte=self._packed_bytes(self.assumed.value, self.recordings.pictures))
        cost = self.costs.stages[step.stage]
        start_s = cost.cpu_s.get("start", 0.0)
        gpu_s = self.recordings.frames * self.assumed.frame_gpu_s(len(self.recordings.cameras))
        if gpu_s:  # pictures are fetched while the GPU computes
            cpu_s = self._read_s(self.recordings.pictures) if self.packed else self._decode_s()
            work_s = max(cpu_s / self.assumed.readers, gpu_s)
        else:
            cpu_s = evaluate({**cost.cpu_s, "start": 0.0}, counts) + (0.0 if self.packed else self._decode_s())
            work_s = cpu_s
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
        return replace(found, shards=shards, pods=PODS_OF_A_PART * shards, gpu_s=held_s, memory_bytes=memory)

    def _num_shards(self, work_s: float) -> int:
        if self.assumed.num_shards is not None:
            return self.assumed.num_shards
        wanted = math.ceil(work_s / (60 * self.assumed.shard_minutes))
        return max(1, min(MOST_SHARDS, wanted, int(self.recordings.episodes)))

    def _trained(self, step: Step) -> StageForecast:
        of_value = step.stage == "train_value"
        training = self.assumed.value if of_value else self.assumed.policy
        rows = training.steps * training.batch
        looked = rows * training.looks * len(self.recordings.cameras)
        counts = counted(
            self.recordings, step=training.steps, row=rows, packed_byte=self._packed_bytes(training, looked)
        )
        cost = self.costs.stages[step.stage]
        before_s, beside_s, scratch = self._looked_s(training, looked, of_value=of_value)
        gpu_s = 0.0
        if training.network is None:
            cpu_s = wall_s = evaluate(cost.cpu_s, counts) + before_s
        else:
            start_s = cost.cpu_s.get("start", 0.0)
            cpu_s = start_s + before_s + beside_s
            computed_s = training.steps * self.assumed.step_s(training)
            wall_s = start_s + before_s / self.assumed.readers
            wall_s += max(beside_s / (self.assumed.readers * self.assumed.gpus), computed_s)
            gpu_s = self.assumed.gpus * wall_s
        found = self._forecast(step, counts, cpu_s=cpu_s, wall_s=wall_s + 2 * self.assumed.pod_start_s)
        # The step's own two pods, and one that trains: the launcher only watches it.
        return replace(found, pods=PODS_OF_A_TASK + 1, gpu_s=gpu_s, scratch_bytes=scratch)

    def _looked_s(self, training: Training, pictures: float, *, of_value: bool) -> tuple[float, float, float]:
        """Return CPU seconds of pictures before the first step, and beside the steps; and bytes of them on disk."""
        if self.packed or not pictures:
            return 0.0, self._read_s(pictures), 0.0
        whole = self.recordings.pictures
        if of_value:  # decodes all before it trains
            return self._decode_s(), self._read_s(pictures), whole * training.image_side**2 * RGB
        return 0.0, self._decode_s() / whole * pictures * DECODED_PER_LOOK, 0.0

    def _forecast(
        self, step: Step, counts: Counts, *, cpu_s: float, wall_s: float, written: float | None = None
    ) -> StageForecast:
        cost = self.costs.stages[step.stage]
        written = evaluate(cost.written_bytes, counts) if written is None else written
        requests = {name: evaluate(form, counts) for name, form in cost.requests.items()}
        read = evaluate(cost.read_bytes, counts)
        # A large file comes in windows and goes in parts, whatever was counted on small ones.
        if requests:
            requests["GET"] = max(requests.get("GET", 0.0), read / WINDOW_BYTES)
            requests["PUT"] = requests.get("PUT", 0.0) + written // PART_BYTES
        return StageForecast(
            step=step,
            runs=1,
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

"""Record episodes in the Meta-World simulator as a LeRobot dataset: scripted, or with a policy acting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.video import H264
from robolift.errors import UsageError
from robolift.logging import progress
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.sim import tasks
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec, behaviours, recording_seeds
from robolift.sim.recording import Actor, record_scripted, record_with_actor
from robolift.sim.records import EpisodeRecord
from robolift.sim.workers import Workers
from robolift.stages import acting
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS: Mapping[str, Input] = {"policy": Input(kind=Kind.POLICY, optional=True)}
OUTPUT = Kind.RECORDING

# Nearly lossless: small images are cheap, and what is recorded should look like what a policy will see.
CODEC = replace(H264, options=tuple((key, "12" if key == "crf" else value) for key, value in H264.options))
ROBOT_TYPE = "metaworld_sawyer"
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
FEATURES: dict[str, FeatureSpec] = {
    tasks.STATE: FeatureSpec(
        "float32",
        (tasks.STATE_DIM,),
        tuple(f"{part}{when}" for when in ("", "_previous") for part in ("hand_x", "hand_y", "hand_z", "gripper")),
    ),
    tasks.ENVIRONMENT_STATE: FeatureSpec(
        "float32",
        (tasks.ENVIRONMENT_STATE_DIM,),
        (
            *(f"object_{part}{when}" for when in ("", "_previous") for part in _POSE),
            *(f"goal_{axis}" for axis in ("x", "y", "z")),
        ),
    ),
    "action": FeatureSpec("float32", (tasks.ACTION_DIM,), ("velocity_x", "velocity_y", "velocity_z", "gripper")),
    "control_mode": FeatureSpec("string"),
    "intervention": FeatureSpec("int64"),
    "progress_gt": FeatureSpec("float32"),
    "stage_progress_gt": FeatureSpec("float32"),
    "is_good_gt": FeatureSpec("int64"),
}


class Config(StageConfig):
    """Which task, how many episodes of each kind, and what is recorded of them."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"num_workers"})

    task: str = tasks.DEFAULT_TASK
    """Meta-World task."""
    instruction: str = ""
    """Task text of the episodes; empty: the task's own, or that of the policy where its dataset had another."""
    seed: int = Field(0, ge=0, le=9999)
    """Chooses scenes and all randomness; two seeds share no scene, and none is shared with an evaluation."""
    num_demos: int = Field(4, ge=0)
    """Demonstrations by the scripted expert."""
    num_autonomous: int = Field(180, ge=0)
    """Rollouts of a sloppy operator, or of the policy where one is given."""
    num_takeovers: int = Field(16, ge=0)
    """Such rollouts in which the expert takes over once there is no progress."""
    cameras: tuple[str, ...] = ("behindGripper", "gripperPOV", "topview")
    """Cameras recorded; none records states only and needs no OpenGL."""
    image_size: int = Field(96, ge=16, le=480, multiple_of=2)
    """Height and width of the images, pixels, even."""
    version: Literal["v2.1", "v3.0"] = "v3.0"
    """LeRobot version written."""
    max_frames: int = Field(75, ge=1, le=250)
    """Longest episode, frames of 25 ms; reaching it without success is a failure."""
    frames_after_success: int = Field(2, ge=0)
    """Frames recorded after the task is solved."""
    action_noise: float = Field(0.15, ge=0, le=1)
    """Standard deviation of Gaussian noise on every action, where 1 is full speed."""
    bad_fraction: float = Field(0.5, ge=0, lt=1)
    """Share of the sloppy operator's stretches of 0.1 to 0.3 s that are bad: drift, freeze, fumble, offset."""
    execute: Annotated[int, Field(ge=1)] | None = None
    """Actions executed of each chunk of the policy; by default half of its horizon."""
    label: str | int | None = None
    """Advantage that the policy is asked for; by default positive, or none where it was trained without labels."""
    guidance: float = Field(1.0, ge=0)
    """Strength of classifier-free guidance of the policy."""
    gl: Literal["egl", "osmesa"] = "egl"
    """OpenGL library, both headless and without a GPU."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Simulator processes; by default one a core."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in tasks.TASKS:
            raise ValueError(f"no such Meta-World task; there are: {', '.join(tasks.TASKS)}")
        return task

    @field_validator("cameras")
    @classmethod
    def _known_cameras(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := set(cameras) - set(tasks.CAMERAS):
            raise ValueError(f"no camera {', '.join(sorted(wrong))}; there are: {', '.join(tasks.CAMERAS)}")
        if len(set(cameras)) < len(cameras):
            raise ValueError("a camera stands twice")
        return tuple(sorted(cameras))

    @model_validator(mode="after")
    def _some_episodes(self) -> Config:
        if self.num_episodes == 0:
            raise ValueError("no episodes: num_demos, num_autonomous and num_takeovers are all 0")
        return self

    @property
    def text(self) -> str:
        """Task text of the episodes."""
        return self.instruction or tasks.TASKS[self.task]

    @property
    def num_episodes(self) -> int:
        """All episodes."""
        return self.num_demos + self.num_autonomous + self.num_takeovers


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Record the episodes and return their counts."""
    policy = inputs.get_one("policy")
    seeds = recording_seeds(config.seed, config.num_episodes, policy_digest=policy.digest if policy else "")
    spec = WorldSpec(task=config.task, cameras=config.cameras, image_size=config.image_size, gl=config.gl)
    driver = _driver(config, policy) if policy else None
    text = driver.text if driver else config.text
    plans = _plans(config, seeds, driver)
    writer = _writer(config, output, seeds, text)
    counts = {"episodes": 0, "frames": 0, "successes": 0}
    with Workers(spec, config.num_workers) as workers:
        records = record_with_actor(workers, plans, driver.act) if driver else record_scripted(workers, plans)
        for record in progress(records, total=len(plans), what="simulate episodes", unit="episode"):
            _write(writer, record, text)
            counts["episodes"] += 1
            counts["frames"] += len(record.columns["action"])
            counts["successes"] += record.success
    writer.finish()
    return counts


@dataclass(frozen=True, kw_only=True)
class _Driver:
    """The policy that acts, how much of each of its chunks is used, and the text of the task it does."""

    act: Actor
    execute: int
    text: str


def _driver(config: Config, policy: Manifest) -> _Driver:
    facts = acting.read_policy(policy)
    execute = acting.check_simulated(facts, execute=config.execute)
    text = _text(config, facts)
    label = facts.best_label(text) if config.label is None else config.label
    asked = facts.prompt(text, label)
    recorded = {tasks.camera_key(name) for name in config.cameras}
    if missing := sorted(set(facts.cameras) - recorded):
        raise UsageError(f"the policy looks through {', '.join(missing)}, which `cameras` does not record")
    act = acting.actor(acting.load_policy(facts), prompt=asked, guidance=config.guidance)
    return _Driver(act=act, execute=execute, text=text)


def _text(config: Config, facts: acting.PolicyFacts) -> str:
    """Return the task text: as configured, or the policy's own where its dataset was imported under another text."""
    # The own text of a Meta-World task would be a policy for that task, not this task under another text.
    own = [text for text in facts.tasks if text not in tasks.TASKS.values()]
    if config.instruction or config.text in facts.tasks or len(own) != 1:
        return config.text
    return own[0]


def _plans(config: Config, seeds: Sequence[int], driver: _Driver | None) -> list[EpisodePlan]:
    who = behaviours(demos=config.num_demos, autonomous=config.num_autonomous, takeovers=config.num_takeovers)
    return [
        EpisodePlan(
            index=index,
            seed=seed,
            behaviour=behaviour,
            by_policy=driver is not None and behaviour is not Behaviour.DEMO,
            max_frames=config.max_frames,
            frames_after_success=config.frames_after_success,
            action_noise=config.action_noise,
            bad_fraction=config.bad_fraction,
            execute=driver.execute if driver else 1,
            keep_images=bool(config.cameras),
        )
        for index, (seed, behaviour) in enumerate(zip(seeds, who, strict=True))
    ]


def _writer(config: Config, output: Output, seeds: range, text: str) -> LeRobotWriter:
    return LeRobotWriter(
        output.path,
        fps=tasks.CONTROL_HZ,
        features=FEATURES,
        cameras={tasks.camera_key(name): (config.image_size, config.image_size) for name in config.cameras},
        robot_type=ROBOT_TYPE,
        version=config.version,
        codec=CODEC,
        extra_info={
            "robolift": {
                "simulator": "metaworld",
                "task": config.task,
                "instruction": text,
                "control_hz": tasks.CONTROL_HZ,
                "max_frames": config.max_frames,
                "image_size": config.image_size,
                "seeds": [seeds.start, len(seeds)],
            }
        },
    )


def _write(writer: LeRobotWriter, record: EpisodeRecord, text: str) -> None:
    writer.add_episode(
        record.columns,
        videos=record.images,
        task=text,
        extra={
            "outcome": "success" if record.success else "failure",
            "kind": record.plan.kind,
            "seed": record.plan.seed,
        },
    )

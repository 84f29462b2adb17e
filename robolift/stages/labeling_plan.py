"""Checks made before a reward_labeling run spends anything, and what its export is told.

A run either labels (``mode: label``: a model is asked about every episode) or takes what people marked since
(``mode: import_reviews``: the model's answers are found again, and people's labels are laid over them). Nobody waits
for people inside a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from robolift import storage
from robolift.annotators.labeller import CAUSAL_PREFIX, WHOLE
from robolift.errors import DataError, UsageError
from robolift.stages import preflight
from robolift.stages.preflight import HANDED, Wiring, check_source, probe_writable

MODES = ("label", "import_reviews")
WIRING = Wiring(
    stages=(
        "simulate_episodes",
        "import_dataset",
        "plan_labels",
        "annotate_rewards",
        "collect_rewards",
        "import_reviews",
        "label_quality",
        "merge_rewards",
        "export_dataset",
        "write_report",
    ),
    handed={
        "simulate_episodes": HANDED["simulate_episodes"],
        "import_dataset": {"dataset_uri": "dataset_uri", "iteration": ""},
        "plan_labels": {"model": "model", "endpoint": "endpoint", "protocol": "protocol", "seed": "seed"},
        "annotate_rewards": {"shard": "num_shards", "num_shards": "num_shards", "endpoint": "endpoint"},
        "import_reviews": {"reviews_uri": "reviews_uri"},
        "merge_rewards": {"reward": "reward", "quality_gate": ""},
    },
    defaults={"export_dataset": {"columns": ["rewards"]}},
)
OF_PEOPLE = ("tri", "human")
OF_PROGRESS = ("difference", "level")
"""Rewards that only people can give, and that need progress in every frame."""
MODEL_FILE = "config.json"
KEY_VARIABLE = "ROBOLIFT_VLM_API_KEY"


class RunPlan(NamedTuple):
    """What the steps of a run are told.

    Attributes:
        dataset_uri: Dataset to be labelled, empty to record one in the simulator.
        stages: Stage configurations with this pipeline's defaults beneath them.
    """

    dataset_uri: str
    stages: dict[str, Any]


def find_problems(parameters: Mapping[str, Any]) -> list[str]:
    """Check a run's parameters by the rules of the stages and of this pipeline.

    Args:
        parameters: The run's parameters by name, each of the declared type; those left out have their defaults.

    Returns:
        A line for each wrong one, naming it; none if all is well.
    """
    mode, model, endpoint, reviews_uri = (
        str(parameters.get(name, default))
        for name, default in (("mode", MODES[0]), ("model", ""), ("endpoint", ""), ("reviews_uri", ""))
    )
    problems = preflight.find_problems(parameters, WIRING)
    if mode not in MODES:
        problems.append(f"mode is {mode}, expected {' or '.join(MODES)}")
    if mode == "label" and not model:
        problems.append(
            "model is empty, and mode label asks one; give its name at an endpoint or the address of its weights, or "
            "set mode: import_reviews for people's labels alone"
        )
    if mode == "label" and reviews_uri:
        problems.append("reviews_uri is given, and mode label imports nothing; set mode: import_reviews to use it")
    if mode == "import_reviews" and not reviews_uri:
        problems.append("reviews_uri is empty; give the folder that the labelling page wrote to")
    if endpoint and not model:
        problems.append("endpoint is given and model is empty; name the model that it serves, or leave endpoint out")
    return [*problems, *_combination_problems(parameters, mode=mode, model=model), *_endpoint_problems(endpoint)]


def _combination_problems(parameters: Mapping[str, Any], *, mode: str, model: str) -> list[str]:
    """Return a line for each two settings that can't work together: else only a step after all questions would tell."""
    from robolift.stages.collect_rewards import CALIBRATED  # noqa: PLC0415  (the command line reads this module)

    reward, protocol = str(parameters.get("reward", "difference")), str(parameters.get("protocol", "logprob"))
    problems = []
    if mode == "label" and reward in OF_PEOPLE:
        problems.append(
            f"reward is {reward}, which people mark, and mode label asks a model alone; set reward: difference, "
            "sparse_success or level, or mode: import_reviews"
        )
    sampling = _of_stage(parameters, "plan_labels").get("sampling", WHOLE)
    if mode == "label" and reward in OF_PROGRESS and protocol == "rubric" and sampling == WHOLE:
        problems.append(
            f"reward is {reward}, which needs progress in every frame, and protocol rubric with sampling whole judges "
            f"the last one alone; set stages.plan_labels.sampling: {CAUSAL_PREFIX}, reward: sparse_success, or another "
            "protocol"
        )
    if _is_calibrated(parameters) and (not model or protocol not in CALIBRATED):
        asked = f"protocol is {protocol}" if model else "model is empty"
        problems.append(
            f"stages.collect_rewards.calibration is isotonic and {asked}, which gives no score to calibrate; set "
            f"calibration: none, or protocol: {' or '.join(CALIBRATED)}{'' if model else ' and a model'}"
        )
    return problems


def _of_stage(parameters: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    own = (parameters.get("stages") or {}).get(name)
    return own if isinstance(own, Mapping) else {}


def _is_calibrated(parameters: Mapping[str, Any]) -> bool:
    return _of_stage(parameters, "collect_rewards").get("calibration") == "isotonic"


def _endpoint_problems(endpoint: str) -> list[str]:
    if not endpoint:
        return []
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
    except ValueError:  # an address of IPv6 without its bracket
        return [f"endpoint is {endpoint}, no address of a server"]
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not quoted: what is wrong with it may be a password.
        return [
            f"endpoint has more than scheme, host, port and path; a key goes into the variable {KEY_VARIABLE}, on a "
            "cluster from a Secret by labeller.env of the placement file"
        ]
    if parts.scheme not in ("http", "https") or not host:
        return [f"endpoint is {endpoint}, expected an address such as http://robolift-vllm/v1"]
    return []


def plan(
    *,
    output_root: str,
    dataset_uri: str,
    mode: str,
    model: str,
    endpoint: str,
    protocol: str,
    reviews_uri: str,
    reward: str,
    num_shards: int,
    seed: int,
    stages: Mapping[str, Mapping[str, Any] | None],
) -> RunPlan:
    """Check a run's parameters, and that what they name is there.

    Args:
        output_root: Where the run's outputs go.
        dataset_uri: LeRobot dataset, or empty.
        mode: One of MODES.
        model: Name of a model at ``endpoint``, or address of a folder with its weights; empty: no model is asked.
        endpoint: Base address of an OpenAI-compatible server, or empty.
        protocol: How the model is asked.
        reviews_uri: Folder with people's labels; needed by ``import_reviews`` and taken by it alone.
        reward: What the reward is derived from.
        num_shards: Parts into which the episodes are cut.
        seed: The run's seed.
        stages: Configuration by stage name.

    Raises:
        UsageError: Naming each parameter that is wrong.
        DataError: If there is no dataset, no model or no label at the address that was given.
    """
    from robolift.annotators.review.job import JOB_FILE  # noqa: PLC0415  (the command line reads this module)

    parameters = {
        "mode": mode,
        "model": model,
        "endpoint": endpoint,
        "protocol": protocol,
        "reviews_uri": reviews_uri,
        "reward": reward,
        "num_shards": num_shards,
        "seed": seed,
        "stages": stages,
    }
    if problems := find_problems(parameters):
        raise UsageError("\n  ".join(["wrong parameters:", *problems]))
    probe_writable(output_root)
    if dataset_uri:
        check_source(dataset_uri)
    if model and not endpoint and not storage.exists(storage.join(model, MODEL_FILE)):
        raise DataError(
            "no model",
            where=model,
            expected=f"{MODEL_FILE} beside the weights, as transformers saves them",
            mend="check the address, or give the endpoint that serves a model of this name",
        )
    if reviews_uri and not storage.exists(storage.join(reviews_uri, JOB_FILE)):
        raise DataError(
            "no labels",
            where=reviews_uri,
            expected=f"{JOB_FILE} and people's events, as `robolift review --labels` writes them",
            mend="check the address and the credentials for it",
        )
    told = {name: dict(config or {}) for name, config in stages.items()}
    if _is_calibrated(parameters):
        # Whether outcomes suffice can be seen in the dataset, before anything is asked.
        from robolift.stages.collect_rewards import Config  # noqa: PLC0415

        needed = Config(**told["collect_rewards"]).min_calibration_episodes
        told["plan_labels"] = {"min_calibration_episodes": needed, **told.get("plan_labels", {})}
    for name, config in WIRING.defaults.items():
        told[name] = {**config, **told.get(name, {})}
    return RunPlan(dataset_uri=dataset_uri, stages=told)

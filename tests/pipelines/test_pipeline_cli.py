"""pipeline.py: compiled bytes, parameters refused by name, the plan."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import _local, _parameters, _resources
from robolift.errors import UsageError
from robolift.stages import NAMES, clips_plan, labeling_plan, stage_advantage_plan
from robolift.stages.preflight import RECAP

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
PIPELINES = ("recap", "stage_advantage", "reward_labeling", "clip_reward")


def _pipeline(*args, **env):
    return subprocess.run(
        [sys.executable, "pipeline.py", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    # Golden files are written under one order of sets, and compared with what comes of another.
    seed = "1" if os.environ.get("ROBOLIFT_GOLDEN") else "2"
    for pipeline in PIPELINES:
        done = _pipeline("compile", pipeline, "--output", str(folder / f"{pipeline}.yaml"), PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    return folder


def _spec(compiled, pipeline="recap"):
    return next(yaml.load_all((compiled / f"{pipeline}.yaml").read_text(), Loader=yaml.CSafeLoader))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_compiled_pipeline_has_the_golden_bytes(compiled, pipeline):
    content = (compiled / f"{pipeline}.yaml").read_bytes()
    golden = GOLDEN / f"{pipeline}.yaml"
    if os.environ.get("ROBOLIFT_GOLDEN"):
        golden.write_bytes(content)
    assert content == golden.read_bytes(), "the compiled pipeline changed: run `make golden` and read the diff"


@pytest.mark.parametrize(
    ("pipeline", "parameters"), [("recap", 10), ("stage_advantage", 12), ("reward_labeling", 11), ("clip_reward", 12)]
)
def test_a_pipeline_has_at_most_twelve_parameters_and_long_retries(compiled, pipeline, parameters):
    assert len(_spec(compiled, pipeline)["root"]["inputDefinitions"]["parameters"]) == parameters
    text = (compiled / f"{pipeline}.yaml").read_text()
    assert "backoffMaxDuration: 3600s" not in text
    assert "backoffMaxDuration: 604800s" in text


@pytest.mark.parametrize(
    ("pipeline", "wiring"),
    [
        ("recap", RECAP),
        ("stage_advantage", stage_advantage_plan.WIRING),
        ("reward_labeling", labeling_plan.WIRING),
        ("clip_reward", clips_plan.WIRING),
    ],
)
def test_a_run_can_configure_the_stages_that_its_pipeline_has(compiled, pipeline, wiring):
    steps = _parameters.stages_in(_spec(compiled, pipeline))
    assert set(wiring.stages) == steps & set(NAMES)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_step_uses_kfp_s_cache(compiled, pipeline):
    spec = _spec(compiled, pipeline)
    components = spec["components"]
    steps = [t for c in (spec["root"], *components.values()) for t in c.get("dag", {}).get("tasks", {}).values()]
    executed = [t for t in steps if "executorLabel" in components[t["componentRef"]["name"]]]
    assert len(executed) > 12
    assert not any(t["cachingOptions"].get("enableCache") for t in executed)


def test_stage_advantage_labels_twice_and_normalises_before_it_trains(compiled):
    dag = _spec(compiled, "stage_advantage")["components"]["comp-stage-advantage-run"]["dag"]["tasks"]
    artifacts = {name: set(task.get("inputs", {}).get("artifacts", {})) for name, task in dag.items()}
    assert artifacts["label-advantage"] == {"dataset"}
    assert artifacts["label-advantage-2"] == {"dataset", "values"}
    assert artifacts["train-value"] == {"dataset", "frames"}
    packed = {name: dag[name]["inputs"]["parameters"] for name in ("pack-frames", "pack-frames-2", "pack-frames-3")}
    told = [
        [p["consumer_stages"]["componentInputParameter"], p["stages"]["componentInputParameter"]]
        for p in packed.values()
    ]
    assert told == [
        ["labelled_stages", "labelled_stages"],
        ["labelled_stages", "new_stages"],
        ["new_stages", "new_stages"],
    ]
    assert "compute-norm-stats" in dag["train-policy"]["dependentTasks"]
    assert artifacts["train-policy"] == {"dataset", "labels", "values", "checkpoint", "norm_stats", "frames"}
    labelled = {"labelled", "labelled_values", "labelled_labels"}
    made = {"dataset", "values", "labels", "checkpoint", "evaluation", "baselines"}
    assert artifacts["write-report"] == labelled | made
    estimated = dag["label-advantage-2"]["inputs"]["parameters"]["stages"]["componentInputParameter"]
    annotated = dag["label-advantage"]["inputs"]["parameters"]["stages"]["componentInputParameter"]
    assert (annotated, estimated) == ("labelled_stages", "new_stages")


def test_a_compiled_step_gets_the_pod_of_its_stage_wherever_its_name_stands():
    words = ["--function_to_execute", "train_value", "--executor_input", "{{$}}"]
    compiled_step = {"deploymentSpec": {"executors": {"exec-train-value-2": {"container": {"args": words}}}}}
    platform = _resources.with_pods(compiled_step, {})
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors == {"exec-train-value-2": _resources.pod("train_value").config()}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_on_this_machine_nothing_is_tried_again_after_a_minute(compiled, pipeline):
    package = compiled / f"{pipeline}.yaml"
    assert "retryPolicy" in package.read_text()
    assert "retryPolicy" not in _local.for_this_machine(_spec(compiled, pipeline), served=False).component_yaml


def test_reward_labeling_asks_in_shards_and_lets_no_label_past_the_measure(compiled):
    spec = _spec(compiled, "reward_labeling")
    dag = spec["root"]["dag"]["tasks"]
    artifacts = {name: set(task.get("inputs", {}).get("artifacts", {})) for name, task in dag.items()}
    (loop,) = (task for name, task in dag.items() if name.startswith("for-loop"))
    inner = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inner) == {"annotate-rewards"}
    assert set(inner["annotate-rewards"]["inputs"]["artifacts"]) == {"dataset", "plan"}
    assert artifacts["collect-rewards"] == {"dataset", "plan", "shards"}
    assert artifacts["import-reviews"] == {"dataset"}
    assert artifacts["label-quality"] == {"dataset", "automatic", "reviews"}
    assert artifacts["merge-rewards"] == {"dataset", "automatic", "reviews", "quality"}
    assert artifacts["export-dataset"] == {"dataset", "rewards", "quality"}
    # Labels that don't pass are told of and not exported: the report does not wait for the gate, which comes last.
    assert "export-dataset" not in dag["write-report"]["dependentTasks"]
    assert "write-report" in dag["export-dataset"]["dependentTasks"]
    for name in ("export-dataset", "write-report"):
        told = dag[name]["inputs"]["artifacts"]["rewards"]["taskOutputArtifact"]
        assert told["producerTask"] == "merge-rewards"


def test_clip_reward_ends_with_pairs_or_goes_on_to_a_gate_behind_the_report(compiled):
    spec = _spec(compiled, "clip_reward")
    prepared = spec["root"]["dag"]["tasks"]
    assert {name for name in prepared if not name.startswith(("condition", "for-loop"))} == {
        *("check-clips", "ingest-videos", "extract-clips", "plan-shards", "merge-features", "propose-pairs")
    }
    (train,) = (task for task in prepared.values() if "triggerPolicy" in task)
    mode = "inputs.parameter_values['pipelinechannel--mode']"
    assert train["triggerPolicy"]["condition"] == f"{mode} != 'prepare'"
    dag = spec["components"][train["componentRef"]["name"]]["dag"]["tasks"]
    artifacts = {name: set(task.get("inputs", {}).get("artifacts", {})) for name, task in dag.items()}
    scored = {"features", "model", "scores"}
    assert artifacts["validate-reward"] == {*scored, "downstream", "controls", "ablations"}
    assert artifacts["write-report"] == {*scored, "clips", "pairs", "preferences", "validation"}
    assert artifacts["check-reward"] == {"validation", "report"}
    assert dag["check-reward"]["inputs"]["artifacts"]["report"]["taskOutputArtifact"]["producerTask"] == "write-report"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_library_code_travels_in_the_compiled_file(compiled, pipeline):
    text = (compiled / f"{pipeline}.yaml").read_text()
    assert "from robolift.stages" in text
    assert "import numpy" not in text
    assert "pip install" not in text.replace("pip install --", "pip install")


def test_list_names_the_pipelines():
    done = _pipeline("list")
    assert done.returncode == 0
    assert "recap: RECAP" in done.stdout
    assert "positive_fraction: Float = 0.3" in done.stdout
    assert "stage_advantage: kai0's stage advantage" in done.stdout
    assert "reward_labeling: A model and people say" in done.stdout
    assert "clip_reward: Egocentric videos" in done.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("positive_fracton=0.3", "unknown parameter 'positive_fracton'"),
        ("positive_fraction=30", "positive_fraction"),
        ("lookahead=ten", "parameter 'lookahead' is 'ten', expected a whole number"),
        ("lookahead=true", "parameter 'lookahead' is True"),
        ("lookahead=0", "lookahead: "),
        ("num_shards=0", "num_shards"),
        ("num_shards=65", "num_shards is 65, expected at most 64"),
        ("seed=10000", "seed: "),
        ("iterations=4", "iterations is 4, expected 1, 2 or 3"),
        ("baselines=[]", "baselines is empty"),
        ("baselines=[best]", "baselines: train_policy.variant"),
        ("stages.train_valu.steps=3", "stages.train_valu: no such stage"),
        ("stages.train_value.stepps=3", "stages.train_value.stepps"),
        ("stages.train_value.steps=0", "stages.train_value.steps"),
        ("stages.train_value=3", "stages.train_value is 3, expected a mapping"),
        ("stages.label_advantage.lookahead=3", "use its parameter lookahead instead"),
    ],
)
def test_a_wrong_parameter_is_named(compiled, override, message):
    with pytest.raises(UsageError) as caught:
        _parameters.check(_spec(compiled), _parameters.overlay({"output_root": "/nowhere"}, [override]))
    assert message in str(caught.value)


def test_a_stage_without_settings_is_fine(compiled):
    _parameters.check(_spec(compiled), {"output_root": "/nowhere", "stages": {"label_returns": None}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected key=value"),
        ("baselines=[plain", "--set 'baselines=[plain': "),
        ("seed.x=1", "seed is 0, not a mapping"),
    ],
)
def test_a_broken_override_is_a_usage_error(override, message):
    with pytest.raises(UsageError) as caught:
        _parameters.overlay({"seed": 0}, [override])
    assert message in str(caught.value)


def test_overrides_reach_inside_and_leave_the_given_parameters_alone():
    given = {"stages": {"train_value": None}}
    assert _parameters.overlay(given, ["stages.train_value.steps=2"]) == {"stages": {"train_value": {"steps": 2}}}
    assert given == {"stages": {"train_value": None}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head=double", "head: Input should be"),
        ("num_task_stages=0", "num_task_stages"),
        ("labelled_uri=3", "parameter 'labelled_uri' is 3, expected text"),
        ("new_stages.train_valu.steps=3", "new_stages.train_valu: no such stage"),
        ("new_stages.train_policy.stepps=3", "new_stages.train_policy.stepps"),
        ("stages.label_advantage.threshold=300", "threshold"),
        ("iterations=2", "unknown parameter 'iterations'"),
        ("num_shards=65", "num_shards is 65, expected at most 64"),
        ("head=distribution", "stage_advantage takes relative or single"),
        ("labelled_uri=s3://a", "labelled_uri is given and new_uri is empty"),
        ("stages.train_value.head=single", "stages.train_value.head: the pipeline sets it; use its parameter head"),
        (
            "new_stages.train_policy.seed=1",
            "new_stages.train_policy.seed: the pipeline sets it; use its parameter seed",
        ),
        ("new_stages.train_policy=1", "new_stages.train_policy is 1, expected a mapping"),
        ("stages.label_advantage.source=gae", "needs value targets"),
    ],
)
def test_a_wrong_parameter_of_stage_advantage_is_named(compiled, override, message):
    given = {"output_root": "/nowhere"}
    with pytest.raises(UsageError, match=re.escape(message)):
        _parameters.check(_spec(compiled, "stage_advantage"), _parameters.overlay(given, [override]))


ASKED = ("output_root=/nowhere", "model=cosmos", "endpoint=http://vllm/v1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mode=labels"], "mode is labels, expected label or import_reviews"),
        (["model="], "model is empty, and mode label asks one"),
        (["reviews_uri=s3://labels"], "mode label imports nothing; set mode: import_reviews"),
        (["mode=import_reviews"], "reviews_uri is empty; give the folder"),
        (["mode=import_reviews", "reviews_uri=s3://b/l", "model="], "endpoint is given and model is empty"),
        (["endpoint=vllm:8000"], "endpoint is vllm:8000, expected an address such as http"),
        (["endpoint=http:///v1"], "endpoint is http:///v1, expected an address"),
        (["endpoint=http://[::1/v1"], "no address of a server"),
        (["protocol=guess"], "protocol: "),
        (["reward=gain"], "reward: "),
        (["num_shards=65"], "num_shards is 65, expected at most 64"),
        (["iterations=2"], "unknown parameter 'iterations'"),
        (["stages.plan_labels.model=x"], "stages.plan_labels.model: the pipeline sets it; use its parameter model"),
        (["stages.annotate_rewards.endpoint=x"], "use its parameter endpoint instead"),
        (["stages.merge_rewards.reward=level"], "use its parameter reward instead"),
        (["stages.annotate_rewards.timeout=3"], "stages.annotate_rewards.timeout"),
        (
            ["stages.train_value.steps=3"],
            "stages.train_value: no such stage; there are: simulate_episodes, import_dataset",
        ),
    ],
)
def test_a_wrong_parameter_of_reward_labeling_is_named(compiled, overrides, message):
    given = _parameters.overlay({}, [*ASKED, *overrides])
    with pytest.raises(UsageError, match=re.escape(message)):
        _parameters.check(_spec(compiled, "reward_labeling"), given)


@pytest.mark.parametrize("endpoint", ["http://me:secret@vllm/v1", "https://vllm/v1?key=secret", "https://vllm/#secret"])
def test_a_key_in_an_address_is_refused_and_not_repeated(compiled, endpoint):
    given = _parameters.overlay({}, [*ASKED, f"endpoint={endpoint}"])
    with pytest.raises(UsageError, match="a key goes into the variable ROBOLIFT_VLM_API_KEY") as refused:
        _parameters.check(_spec(compiled, "reward_labeling"), given)
    assert "secret" not in str(refused.value).replace("Secret", "")


def test_what_reward_labeling_takes(compiled):
    spec = _spec(compiled, "reward_labeling")
    _parameters.check(spec, _parameters.overlay({}, [*ASKED]))
    _parameters.check(spec, {"output_root": "r", "mode": "import_reviews", "reviews_uri": "s3://b/l"})
    _parameters.check(spec, {"output_root": "r", "mode": "import_reviews", "reviews_uri": "s3://b/l", "model": "m"})


NO_HANDS = "stages.extract_features.extractors=[blur, motion]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mode=both"], "mode is both, expected one of: prepare, train, simulate"),
        (["mode=train"], "preferences_uri is empty; give the folder"),
        (["preferences_uri=s3://b/l"], "mode prepare imports none; set mode: train"),
        (["mode=simulate", "preferences_uri=s3://b/l"], "mode simulate imports none"),
        (["mode=simulate", "videos_uri=s3://b/v"], "simulated annotators know only simulated videos"),
        (["source=gopro"], "source: Input should be"),
        (["annotations_uri=s3://b/a.csv"], "annotations_uri without videos_uri"),
        (["num_pairs=0"], "num_pairs: "),
        (["num_shards=65"], "num_shards is 65, expected at most 64"),
        (["seed=-1"], "seed: "),
        (["stages.train_reward.drop=[hands]"], "stages.train_reward.drop: the pipeline sets it"),
        (["stages.score_clips.method=random"], "stages.score_clips.method: the pipeline sets it"),
        (["stages.propose_pairs.num_pairs=9"], "use its parameter num_pairs instead"),
        (["stages.extract_features.extractors=[hands]"], "extractor hands needs hand_model"),
        (["stages.train_policy.steps=3"], "stages.train_policy: no such stage"),
    ],
)
def test_a_wrong_parameter_of_clip_reward_is_named(compiled, overrides, message):
    given = _parameters.overlay({"output_root": "/nowhere"}, [NO_HANDS, *overrides])
    with pytest.raises(UsageError, match=re.escape(message)):
        _parameters.check(_spec(compiled, "clip_reward"), given)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["mode=simulate"],
        ["mode=train", "preferences_uri=s3://b/labels"],
        ["videos_uri=s3://b/videos", "source=epic", "annotations_uri=s3://b/epic.csv"],
    ],
)
def test_what_clip_reward_takes(compiled, overrides):
    given = _parameters.overlay({"output_root": "/nowhere"}, [NO_HANDS, *overrides])
    _parameters.check(_spec(compiled, "clip_reward"), given)


def test_kai0_s_flags_need_no_preset_in_stage_advantage(compiled):
    given = _parameters.overlay({"output_root": "/nowhere"}, ["stages.label_advantage.threshold=30"])
    _parameters.check(_spec(compiled, "stage_advantage"), given)
    with pytest.raises(UsageError, match="need preset"):
        _parameters.check(_spec(compiled), given)


def test_every_params_file_is_valid(compiled):
    paths = sorted((ROOT / "params").glob("*.yaml"))
    assert [path.stem for path in paths] == [
        *(
            "clip_reward",
            "demo_clips",
            "demo_pixels",
            "demo_state",
            "nightly",
            "recap",
            "reward_labeling",
            "stage_advantage",
        )
    ]
    for path in paths:
        pipeline = path.stem if path.stem in PIPELINES else {"demo_clips": "clip_reward"}.get(path.stem, "recap")
        _parameters.check(_spec(compiled, pipeline), {"output_root": "/nowhere", **_parameters.read(str(path))})

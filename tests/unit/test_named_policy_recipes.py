"""kai0's published policy training under its names: the numbers, and that what a user sets wins over them."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from toy_policies import recipe

from robolift import storage
from robolift.__main__ import main
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.manifest import load
from robolift.policy import loop
from robolift.policy.named_recipes import CAMERAS, RECIPES
from robolift.policy.presets import PRESETS
from robolift.policy.recipe import Recipe
from robolift.policy.serving import Policy
from robolift.stages.stage import execute, load_inputs, parse_config, plan

FOLD = "pi05_flatten_fold_awbc"
TASK = "Flatten and fold the cloth."
NAMES = (FOLD, "pi05_tee_shirt_sort_awbc", "pi05_hang_cloth_awbc")
# kai0 src/openpi/training/config.py at 9d93078, openpi training/optimizer.py for the schedule and AdamW.
PUBLISHED = {
    "objective": "flow",
    "action_horizon": 50,
    "batch_size": 256,
    "steps": 100_000,
    "ema_decay": 0.99,
    "learning_rate": 2.5e-5,
    "beta2": 0.95,
    "weight_decay": 1e-10,
    "gradient_clip": 1.0,
    "normalization": "quantile",
    "label_dropout": 0.0,
    "variant": "advantage",
    "save_every": 1000,
    "log_every": 100,
    "seed": 42,
    "cameras": ["observation.images.top_head", "observation.images.hand_left", "observation.images.hand_right"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_the_published_numbers(name):
    found = parse_config("train_policy", {"recipe": name}).model_dump(mode="json")
    assert {key: found[key] for key in PUBLISHED} == PUBLISHED
    assert found["recipe"] == name
    assert tuple(RECIPES) == NAMES


def test_the_network_is_small_and_a_user_can_see_it():
    assert Recipe(recipe=FOLD).preset == "tiny"
    with pytest.raises(UsageError, match=r"pi05_hang_cloth_awbc is a recipe, not a size: set recipe to it; sizes are"):
        parse_config("train_policy", {"preset": "pi05_hang_cloth_awbc"})


def test_the_published_schedule():
    rate = loop.make_schedule(Recipe(recipe=FOLD))
    published = {0: 2.5e-5 / 1001, 500: 1.2512e-5, 1000: 2.5e-5, 50_500: (2.5e-5 + 2.5e-6) / 2, 100_000: 2.5e-6}
    for step, expected in published.items():
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4), step
    theirs = loop.make_schedule(Recipe(recipe=FOLD, decay_steps=30_000))
    assert float(theirs(15_500)) == pytest.approx((2.5e-5 + 2.5e-6) / 2, rel=1e-4)
    assert [float(theirs(step)) for step in (30_000, 99_999)] == pytest.approx([2.5e-6] * 2, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 99, 200])
def test_the_schedule_spans_a_run_of_any_length(steps):
    short = Recipe(recipe=FOLD, steps=steps)
    rate = loop.make_schedule(short)
    assert short.warmup == steps // 100
    assert float(rate(short.warmup)) == pytest.approx(2.5e-5)
    assert float(rate(steps)) == pytest.approx(2.5e-6)


def test_what_is_set_wins_over_the_recipe():
    set_here = {"steps": 200, "learning_rate": 1e-3, "cameras": None, "label_dropout": 0.3, "variant": "plain"}
    found = Recipe(recipe=FOLD, **set_here).model_dump()
    assert {key: found[key] for key in set_here} == set_here
    others = PUBLISHED.keys() - set_here.keys()
    assert {key: found[key] for key in others} == {key: PUBLISHED[key] for key in others}
    blind = Recipe(recipe=FOLD, vision="none")
    assert (blind.vision, blind.cameras) == ("none", None)
    # What a manifest says of a run is the whole recipe, and gives the same again.
    assert Recipe(**found).model_dump() == found


def test_a_recipe_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"no recipe 'pi05_fold'; there are: pi05_flatten_fold_awbc, pi05_tee"):
        parse_config("train_policy", {"recipe": "pi05_fold"})
    with pytest.raises(UsageError, match=r"train_policy\.recipe: Input should be a valid string"):
        parse_config("train_policy", {"recipe": ["pi05_fold"]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmup_steps": 5}, "warmup_steps is for schedule warmup_cosine, but schedule is one_cycle"),
        ({"final_learning_rate_fraction": 0.5}, "final_learning_rate_fraction is for schedule warmup_cosine"),
        ({"recipe": FOLD, "schedule": "one_cycle", "decay_steps": 9}, "decay_steps is for schedule warmup_cosine"),
        (
            {"schedule": "warmup_cosine", "steps": 200, "warmup_steps": 1000},
            r"warm-up takes 1000 steps, expected fewer than decay_steps \(200\)",
        ),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        parse_config("train_policy", settings)


def test_without_a_recipe_the_defaults_are_what_they_were():
    plain = recipe()
    assert (plain.recipe, plain.schedule, plain.beta2, plain.warmup_steps) == ("", "one_cycle", 0.999, None)
    rate = loop.make_schedule(recipe(steps=10, learning_rate=1e-2))
    assert float(rate(3)) == pytest.approx(1e-2)
    assert float(rate(10)) == pytest.approx(1e-2 / 25 / 1e4, rel=1e-2)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A robot's recording with kai0's cameras, and all that a policy is made from."""
    base = tmp_path_factory.mktemp("kai0")
    root = str(base / "runs")
    synthetic.write_recording(base / "cloth", cameras=CAMERAS, task=TASK)
    dataset = execute("import_dataset", {"dataset_uri": str(base / "cloth")}, {}, root)
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
    tiny = {"cameras": list(CAMERAS), "image_size": [32, 32], "steps": 2, "batch_size": 8, "warmup_steps": 1}
    given = {"dataset": dataset.uri, "targets": targets.uri}
    checkpoint = execute("train_value", {**tiny, "shift_px": 2}, given, root)
    shard = execute("predict_values", {}, {"dataset": dataset.uri, "checkpoint": checkpoint.uri}, root)
    values = execute("merge_values", {}, {"shards": [shard.uri], "dataset": dataset.uri}, root)
    by_progress = {"source": "progress", "column": "stage_progress_gt", "lookahead": 8, "population": "all"}
    kai0 = {**by_progress, "demo": "score", "intervention": "score"}
    labels = execute("label_advantage", kai0, {"dataset": dataset.uri}, root)
    stats = execute("compute_norm_stats", {}, {"dataset": dataset.uri}, root)
    made = {"dataset": dataset, "labels": labels, "values": values, "checkpoint": checkpoint, "norm_stats": stats}
    return {name: found.uri for name, found in made.items()}, root


@pytest.fixture(scope="module")
def trained(chain):
    """The policy that the command of the documentation gives."""
    inputs, root = chain
    overrides = [f"inputs.{name}={uri}" for name, uri in inputs.items()]
    settings = [f"config.recipe={FOLD}", "config.steps=3", "config.batch_size=16", f"output_root={root}"]
    words = [word for override in (*overrides, *settings) for word in ("--set", override)]
    assert main(["train_policy", *words]) == 0
    digest = plan(
        "train_policy",
        parse_config("train_policy", {"recipe": FOLD, "steps": 3, "batch_size": 16}),
        load_inputs("train_policy", inputs),
        root,
    ).digest
    return load(f"{root}/train_policy/{digest}")


def test_the_command_trains_under_the_recipe(trained):
    assert trained.counts["steps"] == 3
    metrics = trained.metrics()
    assert (metrics["recipe"], metrics["preset"]) == (FOLD, "tiny")
    assert storage.read_json(trained.file("policy.json"))["preset"] == "tiny"
    policy = Policy.load(trained.uri)
    assert policy.spec.architecture == PRESETS["tiny"]()
    assert (policy.action_horizon, policy.execute) == (50, 25)
    assert sorted(policy.cameras) == sorted(CAMERAS)


def test_the_prompt_that_a_client_forgets_to_label_is_refused(trained, chain):
    """kai0's trap: its estimator's prompt is also its policy's default, and no policy was trained on it."""
    policy = Policy.load(trained.uri)
    opened = Dataset.open(load(chain[0]["dataset"]))
    seen = {camera: next(iter(opened.video(0, camera, size=policy.image_size)))[None] for camera in policy.cameras}
    seen |= {key: opened.column(key, [0])[:1] for key in policy.state_keys}
    assert policy.prompts.prompts == (f"{TASK}, Advantage: negative", f"{TASK}, Advantage: positive")
    acted = policy.act(seen, prompts=[f"{TASK}, Advantage: positive"], seed=0)
    assert acted.shape == (1, 50, 4)
    assert np.isfinite(acted).all()
    for prompt in (
        TASK,
        "fold the cloth, Advantage: positive",
        f"{TASK} Advantage: positive",
        f"{TASK}, advantage: positive",
        f"{TASK}, Advantage: 1",
        "",
    ):
        with pytest.raises(UsageError, match=r"unknown prompt .*the policy was trained on:\n  Flatten and fold"):
            policy.act(seen, prompts=[prompt], seed=0)
    with pytest.raises(UsageError, match=r"guidance is 2\.0, but the bare prompt .* was not trained"):
        policy.act(seen, prompts=[f"{TASK}, Advantage: positive"], seed=0, guidance=2.0)


def test_frames_without_a_label_do_not_open_the_bare_prompt(trained, chain):
    labels = load(chain[0]["labels"]).table("labels").column("advantage_label").to_pylist()
    assert labels.count("none") >= 8  # the last frame of each episode has no advantage
    by_prompt = trained.metrics()["frames_by_prompt"]
    assert by_prompt[TASK] > 0
    dropped = execute(
        "train_policy", {"recipe": FOLD, "steps": 1, "batch_size": 16, "label_dropout": 0.1}, chain[0], chain[1]
    )
    assert TASK in Policy.load(dropped.uri).prompts.prompts


def test_it_is_evaluated_on_a_robot_s_held_out_episodes(trained, chain):
    inputs = {"policy": trained.uri, "dataset": chain[0]["dataset"]}
    found = execute("evaluate_policy", {"stride": 10}, inputs, chain[1])
    assert found.metrics()["mode"] == "offline"
    assert list(found.metrics()["conditions"]) == ["positive"]
    with pytest.raises(UsageError, match=rf"the policy wasn't trained on the prompt '{TASK}'"):
        execute("evaluate_policy", {"conditions": [{"label": "none"}]}, inputs, chain[1])


def test_cameras_of_other_names_are_refused(chain):
    inputs, root = chain
    two = [CAMERAS[0], CAMERAS[1]]
    with pytest.raises(DataError, match=r"cameras are observation\.images\.top_head, observation\.images\.hand_left"):
        execute("train_policy", {"recipe": FOLD, "steps": 1, "cameras": two}, inputs, root)

"""Names, shapes and frozen weights of pi0.5 are openpi's."""

import json
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pi05_case
import pytest

from robolift.errors import UsageError
from robolift.policy.pi05 import freeze, network, tree
from robolift.policy.pi05.config import PRESETS, dummy, pi05, pi05_lora

PUBLISHED = json.loads(pi05_case.NAMES.read_text())


@pytest.mark.parametrize("name", ["pi05", "pi05_lora"])
def test_names_and_shapes_are_openpis(name):
    wanted = {path: tuple(shape) for path, shape in PUBLISHED["shapes"][name].items()}
    config = PRESETS[name]()
    assert tree.names_and_shapes(config) == wanted
    fresh = jax.eval_shape(lambda key: network.init(key, config), jax.random.key(0))
    assert {path: leaf.shape for path, leaf in tree.flatten(fresh).items()} == wanted
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {np.dtype("float32")}


def test_number_of_weights():
    assert tree.count(pi05()) == 3_353_433_872
    assert tree.count(pi05()) == pytest.approx(3.35e9, rel=0.01)
    # Rank 16 of the language model and 32 of the action expert: q, k and v, output, two gates, and down.
    language = 16 * (8 * (2048 + 256) + 2 * (2048 + 256) + 8 * (256 + 2048) + 3 * (2048 + 16_384))
    actions = 32 * (8 * (1024 + 256) + 2 * (1024 + 256) + 8 * (256 + 1024) + 3 * (1024 + 4096))
    assert tree.count(pi05_lora()) - tree.count(pi05()) == 18 * (language + actions)


def test_the_tree_by_path_and_back():
    nested = {"b": {"c": 1, "a": {"d": 2}}, "a": 3}
    flat = tree.flatten(nested)
    assert list(flat.items()) == [("a", 3), ("b/a/d", 2), ("b/c", 1)]
    assert tree.unflatten(flat) == nested


@pytest.mark.parametrize("name", ["both", "vlm", "expert"])
def test_low_rank_updates_freeze_what_openpi_freezes(name):
    full = pi05_lora()
    plain = {"both": {}, "vlm": {"expert": pi05().expert}, "expert": {"vlm": pi05().vlm}}[name]
    trained = tree.flatten(freeze.trained(replace(full, **plain)))
    assert [path for path, trains in trained.items() if not trains] == PUBLISHED["frozen"][name]


def test_everything_trains_unless_told_otherwise():
    assert all(tree.flatten(freeze.trained(dummy())).values())
    trained = tree.flatten(freeze.trained(dummy(), ["PaliGemma/img/.*", "PaliGemma/llm/embedder/.*"]))
    frozen = {path for path, trains in trained.items() if not trains}
    assert frozen == {p for p in trained if p.startswith("PaliGemma/img/")} | {"PaliGemma/llm/embedder/input_embedding"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["img"], "'img' matches no weight"),
        (["("], "no regular expression"),
        ([".*"], "leaves no weight to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns, message):
    with pytest.raises(UsageError, match=message):
        freeze.trained(dummy(), patterns)


def test_sizes_and_names_need_no_jax():
    program = "import sys, robolift.policy.pi05.freeze as f; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

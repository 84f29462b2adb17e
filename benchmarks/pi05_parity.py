"""Is our pi0.5 the network that openpi's is? Same weights, same inputs, float32, at the size of the `dummy` preset.

    ROBOLIFT_OPENPI=path/to/openpi python benchmarks/pi05_parity.py [--write]

Needs jax, flax, einops, jaxtyping and beartype. What openpi imports besides for data and PyTorch is replaced by empty
modules, and what it hard-codes (the vision tower's size, the picture's side, the vocabulary) is set from outside.
``--write`` records openpi's outputs, and the names and shapes of its full-size tree, as fixtures of the tests.
What was seen: pi05_parity.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]
CHECKOUT = os.environ.get("ROBOLIFT_OPENPI", "")
WANTED = 1e-5


class Unused:
    """Stands for a class that openpi names but this measurement never makes."""


def empty_module(name: str, **attributes: object) -> types.ModuleType:
    """Return a module of ``attributes`` that importing ``name`` will give."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


if not CHECKOUT:
    print("not run: set ROBOLIFT_OPENPI to a checkout of openpi")
    sys.exit(0)
sys.path.insert(0, str(Path(CHECKOUT) / "src"))
functional = empty_module("torch.nn.functional")
neural = empty_module("torch.nn", functional=functional)
empty_module("torch", Tensor=Unused, nn=neural, uint8=None, float32=None)
for name in ("augmax", "safetensors", "openpi.models_pytorch"):
    empty_module(name)
sys.modules["openpi.models_pytorch"].pi0_pytorch = empty_module("openpi.models_pytorch.pi0_pytorch")
os.environ["JAXTYPING_DISABLE"] = "1"

import jaxtyping  # noqa: E402

if not hasattr(jaxtyping._decorator, "_check_dataclass_annotations"):
    # openpi wraps a function that is gone in newer releases; it is never called.
    jaxtyping._decorator._check_dataclass_annotations = None

import flax.nnx as nnx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pi05_case  # noqa: E402
from openpi.models import gemma, lora, model, pi0, pi0_config, siglip  # noqa: E402

from robolift.policy.loss import flow_errors  # noqa: E402
from robolift.policy.pi05 import config as sizes  # noqa: E402
from robolift.policy.pi05 import network, tree  # noqa: E402
from robolift.policy.pi05.config import GemmaConfig, Pi05Config  # noqa: E402


def as_openpi(config: GemmaConfig) -> gemma.Config:
    """Return openpi's configuration of the same Gemma; it scales an update by alpha / rank, here 1."""
    rank, shared = config.lora_rank, dataclasses.asdict(config)
    del shared["lora_rank"]
    update = lora.LoRAConfig(rank=rank, alpha=float(rank))
    return gemma.Config(**shared, lora_configs={"attn": update, "ffn": update} if rank else {})


@contextmanager
def sized(config: Pi05Config) -> Iterator[None]:
    """Replace the sizes that openpi hard-codes by those of ``config``."""
    experts, vision = {"vlm": config.vlm, "expert": config.expert}, config.vision
    picture = (vision.image_side, vision.image_side)

    def tower(num_classes: int, **options: Any) -> Any:
        del options["variant"]
        size = {"width": vision.width, "depth": vision.depth, "mlp_dim": vision.mlp_dim, "num_heads": vision.num_heads}
        return siglip._Module(num_classes, patch_size=(vision.patch, vision.patch), **size, **options)

    with (
        mock.patch.object(gemma, "get_config", lambda variant: as_openpi(experts[variant])),
        mock.patch.object(gemma, "PALIGEMMA_VOCAB_SIZE", config.vocabulary),
        mock.patch.object(siglip, "Module", tower),
        mock.patch.object(model, "IMAGE_RESOLUTION", picture),
        mock.patch.dict(model.preprocess_observation.__kwdefaults__, image_resolution=picture),
    ):
        yield


def build(config: Pi05Config) -> pi0.Pi0:
    """Return openpi's pi0.5 of this size without values, within :func:`sized`."""
    theirs = pi0_config.Pi0Config(
        pi05=True,
        dtype=config.dtype,
        paligemma_variant="vlm",
        action_expert_variant="expert",
        action_dim=config.action_dim,
        action_horizon=config.action_horizon,
        max_token_len=config.max_token_len,
    )
    return nnx.eval_shape(theirs.create, jax.random.key(0))


def published(name: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of openpi's own full-size configuration."""
    variants = {"pi05": ("gemma_2b", "gemma_300m"), "pi05_lora": ("gemma_2b_lora", "gemma_300m_lora")}
    language, actions = variants[name]
    config = pi0_config.Pi0Config(pi05=True, paligemma_variant=language, action_expert_variant=actions)
    return shapes(nnx.eval_shape(config.create, jax.random.key(0)))


def frozen_names(name: str) -> list[str]:
    """Return the names that openpi's own freeze filter takes, of a full-size configuration."""
    language, actions = {"both": ("gemma_2b_lora", "gemma_300m_lora"), "vlm": ("gemma_2b_lora", "gemma_300m")}.get(
        name, ("gemma_2b", "gemma_300m_lora")
    )
    config = pi0_config.Pi0Config(pi05=True, paligemma_variant=language, action_expert_variant=actions)
    state = nnx.state(nnx.eval_shape(config.create, jax.random.key(0)))
    return sorted(tree.flatten(state.filter(config.get_freeze_filter()).to_pure_dict()))


def shapes(theirs: pi0.Pi0) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of openpi's tree, in the order of their names."""
    return {path: tuple(leaf.shape) for path, leaf in tree.flatten(nnx.state(theirs).to_pure_dict()).items()}


def openpi_outputs(config: Pi05Config, case: pi05_case.Case) -> dict[str, np.ndarray]:
    """Return openpi's loss rows, one velocity and sampled actions."""
    theirs = build(config)
    weights = tree.unflatten({path: jnp.asarray(w) for path, w in pi05_case.weights(config).items()})
    graph, state = nnx.split(theirs)
    state.replace_by_pure_dict(weights)
    seen = model.Observation(
        images={name: jnp.asarray(case.images[:, k]) for k, name in enumerate(config.cameras)},
        image_masks={name: jnp.asarray(case.image_mask[:, k]) for k, name in enumerate(config.cameras)},
        state=jnp.zeros((len(case.images), config.action_dim)),
        tokenized_prompt=jnp.asarray(case.tokens),
        tokenized_prompt_mask=jnp.asarray(case.token_mask),
    )
    drawn = {"normal": lambda *_: jnp.asarray(case.noise), "beta": lambda *_: jnp.asarray(case.beta)}

    def run(method: Callable[[pi0.Pi0], jax.Array]) -> np.ndarray:
        with mock.patch.multiple(jax.random, **drawn):
            return np.asarray(jax.jit(lambda weights: method(nnx.merge(graph, weights)))(state))

    key = jax.random.key(0)
    return {
        "loss_rows": run(lambda m: m.compute_loss(key, seen, jnp.asarray(case.actions)).mean(-1)),
        "velocity": run(lambda m: openpi_velocity(m, seen, jnp.asarray(case.noise), flow_time(case))),
        "actions": run(lambda m: m.sample_actions(key, seen, num_steps=config.sampling_steps)),
    }


def openpi_velocity(theirs: pi0.Pi0, seen: model.Observation, noisy: jax.Array, time: jax.Array) -> jax.Array:
    """Return the velocity as ``Pi0.compute_loss`` computes it on the way to a loss."""
    prefix, prefix_mask, prefix_ar = theirs.embed_prefix(seen)
    suffix, suffix_mask, suffix_ar, condition = theirs.embed_suffix(seen, noisy, time)
    counts = jnp.concatenate([prefix_mask, suffix_mask], axis=1)
    mask = pi0.make_attn_mask(counts, jnp.concatenate([prefix_ar, suffix_ar]))
    positions = jnp.cumsum(counts, axis=1) - 1
    (_, out), _ = theirs.PaliGemma.llm([prefix, suffix], mask=mask, positions=positions, adarms_cond=[None, condition])
    return theirs.action_out_proj(out)


def flow_time(case: pi05_case.Case) -> jax.Array:
    """Return the time that openpi makes of a draw of the Beta distribution."""
    return jnp.asarray(case.beta) * 0.999 + 0.001


def our_outputs(config: Pi05Config, case: pi05_case.Case) -> dict[str, np.ndarray]:
    """Return the same of our network."""
    params = tree.unflatten({path: jnp.asarray(w) for path, w in pi05_case.weights(config).items()})
    inputs, time = network.Inputs(*map(jnp.asarray, case[:4])), flow_time(case)
    actions, noise = jnp.asarray(case.actions), jnp.asarray(case.noise)
    steps = config.sampling_steps

    def at(params: tree.Params) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return partial(network.velocity, params, config, inputs)

    made = {
        "loss_rows": lambda p: flow_errors(at(p), actions, noise, time, real_dims=config.action_dim).mean(1),
        "velocity": lambda p: network.velocity(p, config, inputs, noise, time),
        "actions": lambda p: network.sample(p, config, inputs, noise, steps=steps),
    }
    return {name: np.asarray(jax.jit(method)(params)) for name, method in made.items()}


def compare(name: str, config: Pi05Config) -> tuple[dict[str, Any], bool]:
    """Print the differences and return openpi's outputs as a fixture, and whether all are small enough."""
    case = pi05_case.case(config)
    with sized(config):
        theirs_tree, theirs = shapes(build(config)), openpi_outputs(config, case)
    same = theirs_tree == tree.names_and_shapes(config)
    print(f"{name}: {len(theirs_tree)} arrays, {tree.count(config):,} weights, names and shapes equal: {same}")
    ours, errors = our_outputs(config, case), {}
    for output, wanted in theirs.items():
        scale = np.abs(wanted).max()
        errors[output] = np.abs(ours[output] - wanted).max() / scale
        print(f"  {output:9} {wanted.shape!s:10} largest {scale:8.4f}  max error / largest {errors[output]:.1e}")
    recorded = {output: np.asarray(value, np.float64).round(7).tolist() for output, value in theirs.items()}
    return recorded, same and max(errors.values()) <= WANTED


def main() -> None:
    """Compare both networks, plain and with low-rank updates; exit 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write openpi's outputs as fixtures of the tests")
    write = parser.parse_args().write
    cases = {"dummy": sizes.dummy(), "dummy_lora": pi05_case.with_lora()}
    found = {name: compare(name, config) for name, config in cases.items()}
    full = {name: published(name) for name in ("pi05", "pi05_lora")}
    agree = [full[name] == tree.names_and_shapes(sizes.PRESETS[name]()) for name in full]
    for (name, theirs), same in zip(full.items(), agree, strict=True):
        print(f"{name}: {len(theirs)} arrays, {sum(map(np.prod, theirs.values())):,} weights, equal: {same}")
    if write:
        frozen = {name: frozen_names(name) for name in ("both", "vlm", "expert")}
        pi05_case.NAMES.write_text(json.dumps({"shapes": full, "frozen": frozen}, indent=0) + "\n")
        pi05_case.GOLDEN.write_text(json.dumps({name: recorded for name, (recorded, _) in found.items()}) + "\n")
    sys.exit(0 if all(agree) and all(close for _, close in found.values()) else 1)


if __name__ == "__main__":
    main()

"""Write tests/fixtures/pi05_openpi with openpi's own code: run it in an environment of openpi's, not in ours.

    PYTHONPATH=.:tests/unit OPENPI=<checkout> python tests/oracle/pi05_fixtures.py

The environment has what openpi pins: jax 0.5.3, flax 0.10.2, orbax-checkpoint 0.11.13, and transformers 4.53.2 with
openpi's ``transformers_replace`` copied over it. What is written:

- ``7/params``: the weights that ``pi05_weights.counted`` counts, as openpi's trainer saves them in step 7;
- ``model.safetensors``: the same after openpi's converter, out of openpi's PyTorch model at that size;
- ``state_dict.txt``: name and shape of every tensor of openpi's PyTorch model of pi0.5 at full size.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import safetensors.torch
import torch
from flax import nnx, traverse_util
from pi05_weights import TINY, counted

OPENPI = Path(os.environ["OPENPI"])
TARGET = Path("tests/fixtures/pi05_openpi")
sys.path[:0] = [str(OPENPI / "src"), str(OPENPI / "packages/openpi-client/src")]


def write_checkpoint() -> None:
    flat = {path: nnx.VariableState(nnx.Param, jax.numpy.asarray(a)) for path, a in _flat(counted()).items()}
    state = nnx.State(traverse_util.unflatten_dict(flat))
    options = ocp.CheckpointManagerOptions(create=True, async_options=ocp.AsyncOptions(timeout_secs=7200))
    handlers = {"params": ocp.PyTreeCheckpointHandler()}
    with ocp.CheckpointManager(TARGET.resolve(), item_handlers=handlers, options=options) as manager:
        manager.save(7, {"params": {"params": state}})


def write_torch() -> None:
    text = (OPENPI / "examples/convert_jax_model_to_pytorch.py").read_text()
    for line in ("from openpi.training import utils\n", "import openpi.training.config as _config\n"):
        text = text.replace(line, "")  # these want all of LeRobot, and only the command line uses them
    converter = _load("converter", text)
    paligemma = {"/".join(path): array for path, array in _flat(counted()["PaliGemma"]).items()}
    sizes = types.SimpleNamespace(
        vision_config=types.SimpleNamespace(hidden_size=TINY.vision.width, num_hidden_layers=TINY.vision.depth),
        text_config=types.SimpleNamespace(**_gemma(TINY.vlm)),
    )
    tensors, expert = converter.slice_paligemma_state_dict(paligemma, sizes)
    expert_sizes = types.SimpleNamespace(**_gemma(TINY.expert), vocab_size=TINY.vocabulary)
    tensors |= converter.slice_gemma_state_dict(
        expert, expert_sizes, num_expert=1, checkpoint_dir="pi05_tiny", pi05=True
    )
    for name in ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"):
        tensors[f"{name}.weight"] = torch.from_numpy(counted()[name]["kernel"]).T
        tensors[f"{name}.bias"] = torch.from_numpy(counted()[name]["bias"])
    model = tiny_model()
    model.load_state_dict(tensors, strict=False)  # as the converter: its tensors lack the two heads
    safetensors.torch.save_model(model.to(torch.float32), str(TARGET / "model.safetensors"))


def tiny_model() -> torch.nn.Module:
    """Return openpi's PyTorch model with the sizes that its source fixes replaced by ours."""
    text = (OPENPI / "src/openpi/models_pytorch/gemma_pytorch.py").read_text()
    vision = {
        "hidden_size": TINY.vision.width,
        "num_hidden_layers": TINY.vision.depth,
        "num_attention_heads": TINY.vision.num_heads,
        "patch_size": TINY.vision.patch,
        "image_size": TINY.vision.image_side,
        "intermediate_size": TINY.vision.mlp_dim,
    }
    lines = [f"        vlm_config_hf.vision_config.{name} = {value}" for name, value in vision.items()]
    text = text.replace("        vlm_config_hf.vision_config.intermediate_size = 4304", "\n".join(lines))
    text = text.replace("projection_dim = 2048", f"projection_dim = {TINY.vlm.width}")
    import openpi.models.gemma
    from openpi.models_pytorch import pi0_pytorch

    patched = _load("gemma_pytorch", text.replace("257152", str(TINY.vocabulary)))
    pi0_pytorch.PaliGemmaWithExpertModel = patched.PaliGemmaWithExpertModel
    sized = {"vlm": TINY.vlm, "expert": TINY.expert}
    openpi.models.gemma.get_config = lambda variant: sized[variant]
    torch.manual_seed(0)
    return pi0_pytorch.PI0Pytorch(_config("vlm", "expert", "float32", TINY.action_dim))


def write_names() -> None:
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

    with torch.device("meta"):
        model = PI0Pytorch(_config("gemma_2b", "gemma_300m", "bfloat16", 32))
    lines = [f"{name} {'x'.join(map(str, tensor.shape))}\n" for name, tensor in sorted(model.state_dict().items())]
    (TARGET / "state_dict.txt").write_text("".join(lines))


def _config(vlm: str, expert: str, dtype: str, action_dim: int) -> Any:
    return types.SimpleNamespace(
        pi05=True,
        paligemma_variant=vlm,
        action_expert_variant=expert,
        dtype=dtype,
        action_dim=action_dim,
        pytorch_compile_mode=None,
    )


def _gemma(config: Any) -> dict[str, int]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "head_dim": config.head_dim,
    }


def _flat(tree: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(tree)


def _load(name: str, text: str) -> types.ModuleType:
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader=None))
    exec(text, module.__dict__)
    return module


if __name__ == "__main__":
    shutil.rmtree(TARGET, ignore_errors=True)
    write_checkpoint()
    write_names()
    write_torch()

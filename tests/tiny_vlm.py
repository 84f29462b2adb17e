"""A tiny Qwen3-VL with random weights as a folder, for tests: real transformers code, half a million numbers, no hub.

It sees pictures and reads words, and what it says depends on both, but it has learned nothing. Its first token is most
likely ``True`` or ``False``, nine times in ten: every word's embedding and those two tokens' outputs share one
direction.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

HIDDEN = 64
BINS = 10
HEAD_TOKEN = "<|prog_token|>"
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    HEAD_TOKEN,
)
WORDS = ("True", "False")
CHAT_TEMPLATE = """\
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}
{%- if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}{{ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def write_tiny_vlm(folder: Path, *, seed: int = 0, heads: bool = True) -> Path:
    """Write a model that ``transport="hf"`` can load, and return its folder.

    Args:
        folder: Made if it isn't there.
        seed: Of every weight.
        heads: Whether it has heads for progress and success.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(folder)
    _write_model(folder, tokens, seed)
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    )
    processor.save_pretrained(folder)
    if heads:
        write_heads(folder, seed=seed)
    return folder


def write_heads(folder: Path, *, seed: int = 0) -> None:
    """Write heads of Robometer's shape: linear, layer norm, GELU, (dropout), linear."""
    rng = np.random.default_rng(seed)
    inner = HIDDEN // 2
    tensors = {}
    for name, out in (("progress_head", BINS), ("success_head", 1)):
        tensors |= {
            f"{name}.0.weight": rng.normal(0, 0.3, (inner, HIDDEN)),
            f"{name}.0.bias": rng.normal(0, 0.1, inner),
            f"{name}.1.weight": rng.normal(1, 0.1, inner),
            f"{name}.1.bias": rng.normal(0, 0.1, inner),
            f"{name}.4.weight": rng.normal(0, 0.5, (out, inner)),
            f"{name}.4.bias": rng.normal(0, 0.1, out),
        }
    safetensors.numpy.save_file({k: v.astype(np.float32) for k, v in tensors.items()}, folder / "heads.safetensors")
    document = {"token": HEAD_TOKEN, "hidden_size": HIDDEN, "bins": BINS}
    (folder / "heads.json").write_text(json.dumps(document))


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Bytes as tokens, and the two words whole."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return dict(fast.get_vocab())


def _write_model(folder: Path, tokens: dict[str, int], seed: int) -> None:
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=tokens["<|image_pad|>"],
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                # The usual start of 0.02 would make all answers alike.
                if weight.ndim > 1:
                    weight.normal_(0, 0.5 if "embed" in name else 0.1)
            model.get_input_embeddings().weight[:, 0] = 4.0
            model.get_output_embeddings().weight[:, 0] = 0.0
            for word in WORDS:
                model.get_output_embeddings().weight[tokens[word], 0] = 2.0
    model.generation_config.eos_token_id = tokens["<|im_end|>"]
    model.generation_config.pad_token_id = tokens["<|endoftext|>"]
    model.save_pretrained(folder)

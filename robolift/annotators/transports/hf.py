"""A vision-language model in this process, through transformers: the only file of the annotators that loads torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when transformers is imported. Models come from the address they are given as, never from a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_flash_attn_2_available

from robolift.annotators.messages import Answer, Heard, Question
from robolift.annotators.transports.chat import TOP_LOGPROBS, candidates, without_thoughts
from robolift.annotators.transports.heads import Heads, read_heads
from robolift.annotators.transports.models import materialize
from robolift.annotators.transports.vision_prompt import Prompt, Prompter, chat_template
from robolift.errors import DataError, UsageError

LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class _Asked:
    """A question with its place among those asked together, and what the model is given for it."""

    place: int
    question: Question
    prompt: Prompt

    @property
    def alike(self) -> tuple[Any, ...]:
        """Equal for questions that can be computed at once."""
        question = self.question
        return (self.prompt.shape, question.wants_heads, question.wants_logprobs, question.max_tokens)


class HFTransport:
    """A model of the Qwen-VL family (Qwen3-VL, Cosmos-Reason2 ...); one thread computes at a time.

    Answers are greedy. Only questions of equal length and pictures are computed together, so nothing is filled up and
    masked, and an answer depends on its question alone, but for the last bits: a matrix product of another shape may
    be summed in another order. On the CPU one thread computes, for the same reason.

    Args:
        model: Folder at any address.
        dtype: ``bfloat16`` or ``float32``.
        device: ``cpu`` or ``cuda``.
        batch_size: Questions computed at once.
        expect_sha256: Digest that the folder must have; empty: any.

    Raises:
        UsageError: If there is no such folder or device.
        DataError: If the folder holds no such model.
    """

    workers = 1

    def __init__(self, *, model: str, dtype: str, device: str, batch_size: int, expect_sha256: str = "") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda, but torch sees no GPU here; set device to cpu, or give the step a GPU")
        # The last bits depend on them, so the stage's digest has them too.
        self.form: Mapping[str, str | int] = {"device": device, "batch_size": batch_size}
        self._batch_size = batch_size
        self._device = device
        self._lock = threading.Lock()
        self._folder = materialize(model, expect_sha256)
        self._prompter, self._model = _load(self._folder, dtype=dtype, device=device)
        self._heads: Heads | None = None

    def probe(self) -> None:
        """Do nothing: the model is loaded."""

    def ask(self, questions: Sequence[Question], heard: Heard | None = None) -> list[Answer]:
        """Answer every question, in order.

        Raises:
            UsageError: If heads are asked for that the model does not have.
        """
        with self._lock, _one_thread(self._device), torch.inference_mode():
            asked = [_Asked(place, question, self._prompt(question)) for place, question in enumerate(questions)]
            answers: dict[int, Answer] = {}
            for batch in _batches(asked, self._batch_size):
                for one, answer in zip(batch, self._answer(batch), strict=True):
                    answers[one.place] = answer
                    if heard:
                        heard(one.place, answer)
        return [answers[place] for place in range(len(questions))]

    def close(self) -> None:
        """Let go of the model's memory."""
        with self._lock:
            self._model = None
            if self._device == "cuda":
                torch.cuda.empty_cache()

    def _prompt(self, question: Question) -> Prompt:
        if not question.wants_heads:
            return self._prompter.prompt(question)
        heads = self._read_heads()
        return self._prompter.prompt(question, behind_pictures=heads.token)

    def _read_heads(self) -> Heads:
        if self._heads is None:
            heads = read_heads(self._folder, hidden_size=self._model.config.get_text_config().hidden_size)
            if heads.token not in self._prompter.tokenizer.get_vocab():
                raise DataError(
                    f"the heads read behind {heads.token}, which the tokenizer does not know",
                    where=str(self._folder),
                    mend="save the tokenizer that the heads were trained with",
                )
            self._heads = heads
        return self._heads

    def _answer(self, batch: Sequence[_Asked]) -> list[Answer]:
        question = batch[0].question
        inputs = _inputs([one.prompt for one in batch], self._model.device, self._model.dtype)
        if question.wants_heads:
            return self._head_values(inputs)
        if question.wants_logprobs:
            return self._first_tokens(inputs)
        return self._texts(inputs, question.max_tokens)

    def _head_values(self, inputs: dict[str, torch.Tensor]) -> list[Answer]:
        heads = self._read_heads()
        states = self._model.base_model(**inputs, use_cache=False).last_hidden_state
        where = inputs["input_ids"] == self._prompter.tokenizer.convert_tokens_to_ids(heads.token)
        answers = []
        for row, here in zip(states, where, strict=True):
            progress, success = heads.read(row[here].float().cpu().numpy())
            answers.append(Answer(progress=progress, success=success, input_tokens=len(row), output_tokens=0))
        return answers

    def _first_tokens(self, inputs: dict[str, torch.Tensor]) -> list[Answer]:
        logits = self._model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
        top = torch.log_softmax(logits.float(), dim=-1).topk(min(TOP_LOGPROBS, logits.shape[-1]))
        tokenizer = self._prompter.tokenizer
        answers = []
        for ids, logprobs in zip(top.indices.tolist(), top.values.tolist(), strict=True):
            texts = [tokenizer.decode([number]) for number in ids]
            answers.append(
                Answer(
                    text=texts[0],
                    logprobs=candidates(zip(texts, logprobs, strict=True)),
                    input_tokens=inputs["input_ids"].shape[1],
                    output_tokens=1,
                    finish_reason="length",
                )
            )
        return answers

    def _texts(self, inputs: dict[str, torch.Tensor], max_tokens: int) -> list[Answer]:
        own = self._model.generation_config
        ends = {own.eos_token_id} if isinstance(own.eos_token_id, int) else set(own.eos_token_id or ())
        tokenizer = self._prompter.tokenizer
        greedy = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=own.pad_token_id if own.pad_token_id is not None else tokenizer.pad_token_id,
        )
        length = inputs["input_ids"].shape[1]
        answers = []
        for row in self._model.generate(**inputs, generation_config=greedy)[:, length:].tolist():
            end = next((place for place, number in enumerate(row) if number in ends), None)
            answers.append(
                Answer(
                    text=without_thoughts(tokenizer.decode(row[:end], skip_special_tokens=True)),
                    input_tokens=length,
                    output_tokens=len(row[:end]),
                    finish_reason="length" if end is None else "stop",
                )
            )
        return answers


def _load(folder: Path, *, dtype: str, device: str) -> tuple[Prompter, Any]:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    flash = device == "cuda" and dtype == "bfloat16" and is_flash_attn_2_available()
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **LOCAL)
        # Pillow's, whether torchvision is there or not: the two scale pictures a little differently.
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)  # type: ignore[no-untyped-call]
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="flash_attention_2" if flash else "sdpa",
            use_safetensors=True,
            **LOCAL,
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"transformers can't load it: {str(error).splitlines()[0]}",
            where=str(folder),
            expected="a Qwen-VL model with its tokenizer and image processor, as save_pretrained writes them",
            mend="copy all files of the model into the folder",
        ) from error
    number = getattr(config, "image_token_id", None)
    if number is None or not hasattr(images, "merge_size"):
        raise UsageError(
            f"{folder} holds a {config.model_type} model; in the step only the Qwen-VL family is asked; "
            "serve this one with vLLM, and set endpoint"
        )
    prompter = Prompter(
        tokenizer=tokenizer,
        image_processor=images,
        image_token=tokenizer.convert_ids_to_tokens(number),
        image_token_id=number,
        template=chat_template(folder, tokenizer),
    )
    return prompter, model.to(device).eval()


def _batches(asked: Sequence[_Asked], batch_size: int) -> Iterator[list[_Asked]]:
    alike: dict[tuple[Any, ...], list[_Asked]] = {}
    for one in asked:
        alike.setdefault(one.alike, []).append(one)
    for group in alike.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _inputs(prompts: Sequence[Prompt], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(np.stack([prompt.input_ids for prompt in prompts])).to(device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    patches = [prompt.patches for prompt in prompts if prompt.patches is not None]
    if patches:
        inputs["pixel_values"] = torch.from_numpy(np.concatenate(patches)).to(device, dtype)
        inputs["image_grid_thw"] = torch.from_numpy(np.concatenate([prompt.grids for prompt in prompts])).to(device)
        inputs["mm_token_type_ids"] = torch.from_numpy(np.stack([prompt.is_picture for prompt in prompts])).to(device)
    return inputs


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

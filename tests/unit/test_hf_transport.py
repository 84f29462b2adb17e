"""A tiny vision-language model in the process, against what transformers computes from the same weights."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_vlm import HEAD_TOKEN, write_tiny_vlm

from robolift import storage
from robolift.annotators.messages import Picture, Question
from robolift.annotators.transports.heads import read_heads
from robolift.annotators.transports.models import model_digest
from robolift.annotators.transports.opening import open_transport
from robolift.errors import DataError, UsageError

PICTURE = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"  # 64x64: 4x4 patches, merged two by two


def picture(seed):
    return Picture(pixels=np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8))


def question(seed=0, words="done?", **wanted):
    return Question(system="Judge.", parts=("before", picture(seed), words), **wanted)


def words_of(shown, words="done?"):
    return (
        "<|im_start|>system\nJudge.<|im_end|>\n"
        f"<|im_start|>user\nbefore{shown}{words}<|im_end|>\n<|im_start|>assistant\n"
    )


def opened(model, *, batch_size=3, **settings):
    return open_transport(
        transport="hf", model=str(model), dtype="float32", device="cpu", batch_size=batch_size, **settings
    )


@pytest.fixture(scope="module")
def transport(tiny_vlm):
    return opened(tiny_vlm)


@pytest.fixture(scope="module")
def alone(tiny_vlm):
    return opened(tiny_vlm, batch_size=1)


@pytest.fixture(scope="module")
def parts(tiny_vlm):
    """The model, tokenizer and image processor, loaded without our code."""
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = Qwen3VLForConditionalGeneration.from_pretrained(tiny_vlm, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_vlm), Qwen2VLImageProcessorPil.from_pretrained(tiny_vlm)


def inputs_of(parts, text, *seeds):
    _, tokenizer, images = parts
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    given = {"input_ids": ids, "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()}
    return given | dict(images(images=[picture(seed).pixels for seed in seeds], return_tensors="pt"))


@torch.no_grad()
def test_first_token_probabilities_are_those_of_the_logits(transport, parts):
    model, tokenizer, _ = parts
    logprobs = model(**inputs_of(parts, words_of(PICTURE), 0)).logits[0, -1].log_softmax(-1)
    (answer,) = transport.ask([question(wants_logprobs=True)])
    assert {"True", "False"} <= set(answer.logprobs)
    for word in ("True", "False"):
        assert answer.logprobs[word] == pytest.approx(logprobs[tokenizer.convert_tokens_to_ids(word)].item(), abs=1e-5)
    best = logprobs.topk(20)
    total = sum(np.exp(value) for value in answer.logprobs.values())
    assert total == pytest.approx(best.values.exp().sum().item(), abs=1e-5)  # bytes of no letter are added up
    assert answer.text == tokenizer.decode([best.indices[0]])
    assert (answer.input_tokens, answer.output_tokens) == (
        inputs_of(parts, words_of(PICTURE), 0)["input_ids"].numel(),
        1,
    )


@torch.no_grad()
def test_the_picture_counts(transport):
    first, second = transport.ask([question(0, wants_logprobs=True), question(1, wants_logprobs=True)])
    assert abs(first.logprobs["True"] - second.logprobs["True"]) > 1e-3


@torch.no_grad()
def likeliest(parts, steps):
    """The tokens of a greedy answer to `question()`, each from a forward pass over all before it."""
    given, said = inputs_of(parts, words_of(PICTURE), 0), []
    for _ in range(steps):
        said.append(int(parts[0](**given).logits[0, -1].argmax()))
        given["input_ids"] = torch.cat([given["input_ids"], torch.tensor([[said[-1]]])], 1)
        given["mm_token_type_ids"] = torch.cat([given["mm_token_type_ids"], torch.zeros(1, 1, dtype=torch.long)], 1)
    return said


def test_text_is_the_likeliest_token_again_and_again(transport, parts):
    (answer,) = transport.ask([question(max_tokens=6)])
    assert answer.text == parts[1].decode(likeliest(parts, 6)).strip()
    assert (answer.output_tokens, answer.finish_reason) == (6, "length")


@torch.no_grad()
def test_heads_read_the_token_behind_each_picture(transport, parts, tiny_vlm):
    model, tokenizer, _ = parts
    text = words_of(f"{PICTURE}{HEAD_TOKEN}{PICTURE}{HEAD_TOKEN}")
    given = inputs_of(parts, text, 0, 1)
    states = model(**given, output_hidden_states=True).hidden_states[-1][0]
    where = given["input_ids"][0] == tokenizer.convert_tokens_to_ids(HEAD_TOKEN)
    progress, success = read_heads(tiny_vlm, hidden_size=64).read(states[where].numpy())
    asked = Question(system="Judge.", parts=("before", picture(0), picture(1), "done?"), wants_heads=True)
    (answer,) = transport.ask([asked])
    assert answer.progress == pytest.approx(progress, abs=1e-5)
    assert answer.success == pytest.approx(success, abs=1e-5)
    assert len(answer.progress) == 2
    assert all(0 < value < 1 for value in answer.progress + answer.success)
    assert (answer.text, answer.output_tokens) == ("", 0)


def mixed(**wanted):
    """Questions of two shapes in turn."""
    return [question(seed, "done?" if seed % 2 else "is it done?", **wanted) for seed in range(7)]


@pytest.mark.parametrize("wanted", [{"max_tokens": 5}, {"wants_logprobs": True}, {"wants_heads": True}])
def test_answers_do_not_depend_on_what_is_computed_together(transport, alone, wanted):
    together, apart = transport.ask(mixed(**wanted)), alone.ask(mixed(**wanted))
    for one, other in zip(together, apart, strict=True):
        assert one.text == other.text
        assert dict(one.logprobs) == pytest.approx(dict(other.logprobs), abs=1e-5)
        assert one.progress + one.success == pytest.approx(other.progress + other.success, abs=1e-5)


def test_questions_of_every_kind_together(transport, alone):
    asked = [
        question(0, max_tokens=3),
        question(1, wants_logprobs=True),
        question(2, wants_heads=True),
        Question(parts=("no picture",), max_tokens=2),
        question(3, max_tokens=3),
    ]
    together = transport.ask(asked)
    for one, answer in zip(asked, together, strict=True):
        assert alone.ask([one])[0].text == answer.text
    assert [bool(answer.progress) for answer in together] == [False, False, True, False, False]


def test_the_same_again_to_the_bit(transport, tiny_vlm):
    before = torch.get_num_threads()
    first = transport.ask(mixed(wants_logprobs=True))
    torch.set_num_threads(2)
    try:
        assert opened(tiny_vlm).ask(mixed(wants_logprobs=True)) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_was_said_before_is_told(transport, parts):
    again = question(wants_logprobs=True, earlier=(("perhaps", "Say True or False."),))
    text = words_of(PICTURE) + (
        "perhaps<|im_end|>\n<|im_start|>user\nSay True or False.<|im_end|>\n<|im_start|>assistant\n"
    )
    (answer,) = transport.ask([again])
    assert answer.input_tokens == inputs_of(parts, text, 0)["input_ids"].numel()


def test_an_end_token_ends_the_answer(tiny_vlm, tmp_path, parts):
    said = likeliest(parts, 12)
    end = next(place for place in range(1, 12) if said[place] not in said[:place])
    short = copy_of(tiny_vlm, tmp_path)
    settings = json.loads((short / "generation_config.json").read_text())
    (short / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [said[end]]}))
    ended, _ = opened(short).ask([question(0, max_tokens=12), question(1, max_tokens=12)])
    assert ended.text == parts[1].decode(said[:end]).strip()
    assert (ended.output_tokens, ended.finish_reason) == (end, "stop")


def test_sampling_settings_of_the_model_are_not_followed(tiny_vlm, tmp_path, transport):
    other = copy_of(tiny_vlm, tmp_path)
    settings = json.loads((other / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 50.0, "top_p": 0.9}
    (other / "generation_config.json").write_text(json.dumps(settings))
    assert opened(other).ask([question(max_tokens=6)]) == transport.ask([question(max_tokens=6)])


def test_bfloat16_is_near(tiny_vlm, transport):
    coarse = open_transport(transport="hf", model=str(tiny_vlm), dtype="bfloat16", device="cpu", batch_size=2)
    (near,), (exact,) = coarse.ask([question(wants_logprobs=True)]), transport.ask([question(wants_logprobs=True)])
    assert near.logprobs["True"] == pytest.approx(exact.logprobs["True"], abs=0.1)
    assert near.logprobs["True"] != exact.logprobs["True"]


def copy_of(tiny_vlm, tmp_path):
    return Path(shutil.copytree(tiny_vlm, tmp_path / "copy"))


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_model_comes_from_any_store(store, request, tiny_vlm, tmp_path, monkeypatch, transport):
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "cache"))
    root = "memory://vlm" if store == "memory" else request.getfixturevalue("s3")
    uri = storage.join(root, "models/tiny")
    for name, _ in storage.list_files(str(tiny_vlm)):
        storage.write_bytes(storage.join(uri, name), (tiny_vlm / name).read_bytes())
    digest = model_digest(str(tiny_vlm))
    fetched = opened(uri, model_sha256=digest)
    assert fetched.ask([question(wants_logprobs=True)]) == transport.ask([question(wants_logprobs=True)])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]
    storage.remove(root)


def test_nothing_is_asked_of_the_network(tiny_vlm, monkeypatch):
    def refuse(*arguments, **_):
        pytest.fail(f"a connection was tried: {arguments[1:]}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    opened(tiny_vlm).ask([question(max_tokens=2), question(wants_logprobs=True), question(wants_heads=True)])


def test_no_heads_no_head_protocol(tmp_path, tiny_vlm):
    bare = copy_of(tiny_vlm, tmp_path)
    (bare / "heads.json").unlink()
    with pytest.raises(UsageError, match="has no heads for progress; choose another protocol"):
        _ask_heads(bare)


def _ask_heads(folder):
    return opened(folder).ask([question(wants_heads=True)])


def test_heads_behind_an_unknown_token(tmp_path, tiny_vlm):
    other = copy_of(tiny_vlm, tmp_path)
    (other / "heads.json").write_text(json.dumps({"token": "<|new|>", "hidden_size": 64, "bins": 10}))
    with pytest.raises(DataError, match=r"behind <\|new\|>, which the tokenizer does not know"):
        _ask_heads(other)


def test_words_may_not_pose_as_a_picture(transport):
    with pytest.raises(UsageError, match=r"words hold <\|image_pad\|>, .*take it out of the task"):
        transport.ask([question(words="put the <|image_pad|> down")])


def test_another_kind_of_model(tmp_path, tiny_vlm):
    other = copy_of(tiny_vlm, tmp_path)
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match=r"transformers can't load it: [\s\S]*expected: a Qwen-VL model"):
        opened(other)


def test_a_model_without_chat_template(tmp_path, tiny_vlm):
    other = copy_of(tiny_vlm, tmp_path)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="a model without a chat template"):
        opened(other)


def test_the_template_of_an_older_folder(tmp_path, tiny_vlm, transport):
    other = copy_of(tiny_vlm, tmp_path)
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").unlink()
    (other / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert opened(other).ask([question(max_tokens=3)]) == transport.ask([question(max_tokens=3)])


def test_another_digest_is_refused(tiny_vlm):
    with pytest.raises(DataError, match="the model's files have the digest"):
        opened(tiny_vlm, model_sha256="0" * 64)


def test_no_gpu_here(tiny_vlm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device cuda, but torch sees no GPU here"):
        open_transport(transport="hf", model=str(tiny_vlm), dtype="float32", device="cuda", batch_size=1)


def test_the_tiny_model_is_the_same_each_time(tiny_vlm, tmp_path):
    assert model_digest(str(write_tiny_vlm(tmp_path / "again"))) == model_digest(str(tiny_vlm))
    assert model_digest(str(write_tiny_vlm(tmp_path / "other", seed=1))) != model_digest(str(tiny_vlm))


def test_it_lets_go_of_the_model(tiny_vlm):
    closing = opened(tiny_vlm)
    closing.close()
    assert closing._model is None

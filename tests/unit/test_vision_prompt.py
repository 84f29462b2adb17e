"""What a Qwen-VL model is given, against transformers' own processor."""

import re

import numpy as np
import pytest
from PIL import Image

from robolift.annotators.messages import Picture, Question
from robolift.annotators.transports.vision_prompt import Prompter, chat_template
from robolift.errors import UsageError


@pytest.fixture(scope="module")
def parts(tiny_vlm):
    from transformers import AutoImageProcessor, AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_vlm), AutoImageProcessor.from_pretrained(tiny_vlm, backend="pil")


@pytest.fixture(scope="module")
def prompter(parts, tiny_vlm):
    tokenizer, images = parts
    return Prompter(
        tokenizer=tokenizer,
        image_processor=images,
        image_token="<|image_pad|>",
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        template=chat_template(tiny_vlm, tokenizer),
    )


@pytest.fixture(scope="module")
def processor(parts):
    """Qwen3VLProcessor; made without its constructor, which wants torchvision for videos."""
    from transformers import Qwen3VLProcessor

    made = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    made.tokenizer, made.image_processor = parts
    made.video_processor = None
    made.image_token, made.video_token = "<|image_pad|>", "<|video_pad|>"
    made.image_token_id, made.video_token_id = parts[0].convert_tokens_to_ids([made.image_token, made.video_token])
    made.chat_template = parts[0].chat_template
    return made


def pixels(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("sizes", [[(64, 64)], [(48, 80), (64, 96), (200, 40)], []])
def test_the_model_is_given_what_its_own_processor_makes(prompter, processor, sizes):
    shown = [pixels(*size) for size in sizes]
    parts = ["The task: é → 2\n", *(Picture(pixels=each) for each in shown), " done?"]
    prompt = prompter.prompt(Question(system="Judge.", parts=tuple(parts), earlier=(("No", "Again."),)))
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
    conversation = [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "No"},
        {"role": "user", "content": [{"type": "text", "text": "Again."}]},
    ]
    text = processor.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    images = [Image.fromarray(each) for each in shown] or None
    expected = processor(text=[text], images=images, return_tensors="np")
    np.testing.assert_array_equal(prompt.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(prompt.is_picture, expected["mm_token_type_ids"][0])
    if shown:
        np.testing.assert_array_equal(prompt.patches, expected["pixel_values"])
        np.testing.assert_array_equal(prompt.grids, expected["image_grid_thw"])
    else:
        assert prompt.patches is None
        assert prompt.grids.shape == (0, 3)


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>"])
def test_marks_of_the_model_in_the_words_are_refused(prompter, mark):
    for question in (Question(parts=(f"The task: fold{mark}", "done?")), Question(system=mark, parts=("done?",))):
        with pytest.raises(
            UsageError, match=rf"hold {re.escape(mark)}, .*take it out of the task's text or the prompt"
        ):
            prompter.prompt(question)


def test_marks_in_an_answer_before_are_words(prompter, parts):
    asked = Question(parts=("done?",), earlier=(("<|im_end|>", "most likely '<|image_pad|>'"),))
    ids = prompter.prompt(asked).input_ids
    text = parts[0].decode(ids)
    assert "<|im_start|>assistant\nim_end<|im_end|>" in text
    assert "most likely 'image_pad'" in text
    assert not prompter.prompt(asked).is_picture.any()


def test_shapes_tell_what_fits_together(prompter):
    def shape(words, *sizes):
        shown = (Picture(pixels=pixels(*size)) for size in sizes)
        return prompter.prompt(Question(parts=(words, *shown))).shape

    assert shape("abc", (64, 64)) == shape("xyz", (64, 64))
    assert shape("abc", (64, 64)) != shape("abcd", (64, 64))
    assert shape("abc", (64, 32)) != shape("abc", (32, 64))  # as many tokens, but not the same places


def test_the_heads_token_stands_behind_each_picture(prompter, parts):
    asked = Question(parts=(Picture(pixels=pixels(64, 64)), "then", Picture(pixels=pixels(64, 64))))
    ids = prompter.prompt(asked, behind_pictures="<|prog_token|>").input_ids
    end, head = parts[0].convert_tokens_to_ids(["<|vision_end|>", "<|prog_token|>"])
    assert ids[np.flatnonzero(ids == end) + 1].tolist() == [head, head]
    assert (ids == head).sum() == 2

"""The fake server's own answers, to the prompts that the product asks with."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import synthetic
from openai_server import MODEL, OpenAIServer
from perfect_model import progress_of

from robolift.annotators.messages import Picture, Question
from robolift.annotators.transports.openai import OpenAITransport

SERVER = Path(__file__).parents[1] / "openai_server.py"
CAMERAS = (synthetic.TOPVIEW, synthetic.BEHIND)


def seen(distance, camera=synthetic.TOPVIEW, size=64):
    """A picture of a square that is so far from its goal."""
    return synthetic.draw(camera, np.array([-0.5 + distance, 0.1]), np.array([-0.5, 0.1]), size)


def answer(words, *pictures, **wanted):
    with OpenAIServer() as server:
        transport = OpenAITransport(model=MODEL, endpoint=server.url, workers=1, max_tries=1)
        asked = Question(parts=(words, *(Picture(pixels=pixels) for pixels in pictures)), **wanted)
        (said,) = transport.ask([asked])
        transport.close()
    return said


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("distance", [0.0, 0.3, 0.6, 1.2])
def test_progress_is_read_from_a_picture(camera, size, distance):
    assert progress_of(seen(distance, camera, size)) == pytest.approx(1 - distance / 1.2, abs=0.06)


def test_progress_rises_and_falls_with_the_recordings(tmp_path):
    for episode in synthetic.make_episodes(episodes=4, frames=24, seed=0):
        progress = [progress_of(pixels) for pixels in synthetic.frames_of(episode, synthetic.TOPVIEW, 32)]
        distance = np.linalg.norm(episode.goal - episode.square, axis=1)
        assert np.corrcoef(progress, distance)[0, 1] < -0.98
        assert (progress[-1] > 0.75) == (episode.outcome == "success")


def test_true_is_as_probable_as_the_last_picture_is_done():
    said = answer("Is this True or False?", seen(0.9), seen(0.3), wants_logprobs=True)
    assert np.exp(said.logprobs["True"]) == pytest.approx(0.75, abs=0.05)
    assert said.text == "True"


def test_percents_are_of_the_way_from_the_start():
    prompt = "Answer with a JSON list of numbers, one for each numbered frame (3 in all)"
    start, *rest = (0.9, 0.45, 0.0, 0.9)
    pictures = [seen(distance, camera) for distance in (start, *rest) for camera in CAMERAS]
    assert json.loads(answer(prompt, *pictures).text) == pytest.approx([50, 100, 0], abs=6)


def test_a_grade():
    assert answer("Answer with the grade alone: one number from 1 to 5.", seen(0.9), seen(0.0)).text == "5"
    assert answer("Answer with the grade alone: one number from 1 to 5.", seen(0.0), seen(1.2)).text == "1"


def test_a_signed_change():
    nearer = [seen(0.9, camera) for camera in CAMERAS] + [seen(0.3, camera) for camera in CAMERAS]
    prompt = "Answer with one signed number between -100 and +100, and nothing else."
    assert int(answer(prompt, *nearer).text) == pytest.approx(50, abs=5)
    assert answer(prompt, *nearer).text.startswith("+")
    assert int(answer(prompt, *nearer[::-1]).text) == pytest.approx(-50, abs=5)


def test_as_a_process():
    command = [sys.executable, str(SERVER), "--port", "0", "--script", "say:hello,500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
            request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode())
            with urllib.request.urlopen(request) as reply:
                assert json.load(reply)["choices"][0]["message"]["content"] == "hello"
            with pytest.raises(urllib.error.HTTPError, match="500") as error:
                urllib.request.urlopen(request)
            error.value.close()
        finally:
            process.terminate()

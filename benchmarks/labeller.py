"""What asking a model over HTTP costs on top of the HTTP itself.

    OMP_NUM_THREADS=1 python benchmarks/labeller.py [--requests 64] [--pictures 8] [--side 448] [--workers 8]
        [--repeats 5] [--seconds 0.5]

A server of its own process (``tests/openai_server.py``) answers at once, or after ``--seconds``. *bare* posts bodies
that were made before with plain httpx from as many threads; *ours* makes the same bodies from pixels and asks through
the transport. Answers are compared first. Medians of interleaved repeats: wall clock, and CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from robolift.annotators.messages import Picture, Question
from robolift.annotators.transports.chat import data_url, request_body
from robolift.annotators.transports.openai import OpenAITransport

SERVER = Path(__file__).parents[1] / "tests/openai_server.py"
MODEL = "fake-vlm"
ANSWER = "[50]"


@contextmanager
def serving(seconds: float) -> Iterator[str]:
    """Run the server and give its address."""
    script = f"slow:{seconds}" if seconds else f"say:{ANSWER}"
    command = [sys.executable, str(SERVER), "--port", "0", "--script", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def photograph(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return (side, side, 3) uint8 that compresses like a camera's picture: smooth shapes and a little noise."""
    coarse = rng.uniform(0, 255, (8, 8, 3))
    smooth = np.kron(coarse, np.ones((side // 8, side // 8, 1)))
    ramp = np.linspace(0, 40, smooth.shape[1])[None, :, None]
    return np.clip(smooth + ramp + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)


def questions(options: argparse.Namespace) -> list[Question]:
    """Return the questions, each with pictures of its own."""
    rng = np.random.default_rng(0)
    return [
        Question(
            system="You watch a robot.",
            parts=(
                f"Question {number}.",
                *(Picture(pixels=photograph(options.side, rng)) for _ in range(options.pictures)),
            ),
            max_tokens=64,
        )
        for number in range(options.requests)
    ]


def bare(url: str, bodies: list[bytes], workers: int) -> Callable[[], list[str]]:
    """Post bodies with plain httpx."""
    limits = httpx.Limits(max_connections=workers, max_keepalive_connections=workers)
    client = httpx.Client(limits=limits, trust_env=False, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}

    def post(body: bytes) -> str:
        reply = client.post(f"{url}/chat/completions", content=body, headers=headers)
        return str(reply.json()["choices"][0]["message"]["content"])

    def run() -> list[str]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(post, bodies))

    return run


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return median (wall, CPU) seconds of each call, taken in turn after one that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if repeat:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in times), statistics.median(c for _, c in times))
        for name, times in taken.items()
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("requests", 64), ("pictures", 8), ("side", 448), ("workers", 8), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=0.0, help="that the server takes for an answer")
    options = parser.parse_args()
    asked = questions(options)
    documents = [request_body(question, model=MODEL) for question in asked]
    bodies = [json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() for document in documents]
    with serving(options.seconds) as url:
        transport = OpenAITransport(model=MODEL, endpoint=url, workers=options.workers)
        post = bare(url, bodies, options.workers)
        assert [answer.text for answer in transport.ask(asked)] == post(), "both sides get the same answers"
        found = measure(
            {
                "bare": post,
                "ours": lambda: transport.ask(asked),
                "of which pictures to JPEG": lambda: [data_url(part) for q in asked for part in q.parts[1:]],
            },
            options.repeats,
        )
        transport.close()
    megabytes = sum(map(len, bodies)) / 1e6
    print(f"{options.requests} requests, {megabytes / options.requests:.2f} MB each, {options.workers} workers")
    for name, (wall, cpu) in found.items():
        print(f"{name:26} {wall:7.3f} s  {options.requests / wall:7.1f} requests/s  {cpu:7.3f} CPU s")
    print(f"ours/bare: {found['ours'][0] / found['bare'][0]:.2f} wall, {found['ours'][1] / found['bare'][1]:.2f} CPU")


if __name__ == "__main__":
    main()

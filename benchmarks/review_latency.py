"""How long the labelling page takes from a key press to the new frame: three cameras of 480x640 on this machine.

Run from the repository: ``python benchmarks/review_latency.py [--steps 400] [--screenshots FOLDER]``. It records a
dataset, serves it with the real server, and presses real keys in a headless Chromium. For each press it takes the
browser's own time stamp of the key event, the moment at which all canvases hold the new frame (*drawn*), and the first
moment after the browser rendered a picture that contains it (*painted*: a task queued from the next animation frame).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/review"), str(ROOT / "tests/unit")]

from coded_dataset import FEATURES, FPS, columns  # noqa: E402  (the folders above)
from review_job import CAMERAS, Server, Watched, chromium  # noqa: E402

from robolift.data.lerobot_writer import LeRobotWriter  # noqa: E402
from robolift.stages.stage import execute  # noqa: E402

SIZE = (480, 640)
LENGTH = 450
EPISODES = 2
PERSON = "anna"

WATCH = """
() => {
  window.steps = [];
  let pressed = null;
  document.addEventListener("keydown", (event) => {
    pressed = event.timeStamp;
    if (event.key === "q") document.querySelector("#cameras").dataset.frame += "";
  }, true);
  new MutationObserver(() => {
    if (pressed === null) return;
    const step = { drawn: performance.now() - pressed };
    const from = pressed;
    pressed = null;
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { step.painted = performance.now() - from; window.steps.push(step); };
      port2.postMessage(null);
    });
  }).observe(document.querySelector("#cameras"), { attributes: true, attributeFilter: ["data-frame"] });
}
"""


def scene(episode: int, camera: int) -> Iterator[np.ndarray]:
    """Yield a textured table with a moving block: about as heavy a picture as a real camera's."""
    draw = np.random.default_rng([episode, camera])
    height, width = SIZE
    rows, cells = np.mgrid[0:height, 0:width]
    table = np.stack([110 + 40 * np.sin(cells / 37) + rows / 12, 105 + rows / 9, 95 + 20 * np.cos(rows / 23)], axis=-1)
    table = np.clip(table + draw.normal(0, 5, table.shape), 0, 255).astype(np.uint8)
    for frame in range(LENGTH):
        image = table.copy()
        x = int(60 + (width - 180) * (0.5 - 0.5 * np.cos(frame / 60 + camera)))
        y = int(height * 0.45 + 60 * np.sin(frame / 25))
        image[y : y + 70, x : x + 70] = (205, 82, 48)
        image[320:400, 470:590] = (52, 128, 92)
        yield image


def record(folder: Path) -> str:
    """Record and import the dataset; return its address."""
    cameras = dict.fromkeys(CAMERAS, SIZE)
    writer = LeRobotWriter(
        folder / "recorded", fps=FPS, features=FEATURES, cameras=cameras, robot_type="sawyer", version="v3.0"
    )
    for episode in range(EPISODES):
        videos = {name: scene(episode, camera) for camera, name in enumerate(CAMERAS)}
        writer.add_episode(columns(episode, LENGTH), videos=videos, task="put the block into the drawer",
                           extra={"outcome": "success"})  # fmt: skip
    writer.finish()
    config = {"dataset_uri": str(folder / "recorded"), "outcome_key": "outcome", "check_videos": "none"}
    return execute("import_dataset", config, {}, str(folder / "runs")).uri


def measure(
    page: Watched, keys: tuple[str, ...], steps: int, *, pause_ms: tuple[float, float]
) -> list[dict[str, float]]:
    """Press keys that each move to another frame; return drawn and painted of each, in milliseconds."""
    draw = random.Random(0)
    page.page.evaluate("window.steps.length = 0")
    for _ in range(steps):
        page.press(draw.choice(keys))
        page.page.wait_for_timeout(draw.uniform(*pause_ms))
    page.page.wait_for_timeout(500)
    return list(page.page.evaluate("window.steps"))


def report(name: str, steps: list[dict[str, float]]) -> None:
    """Print one row of the table."""
    cells = []
    for moment in ("drawn", "painted"):
        times = [step[moment] for step in steps]
        cuts = statistics.quantiles(times, n=20)
        cells += [f"{statistics.median(times):.1f}", f"{cuts[-1]:.1f}", f"{max(times):.1f}"]
    print(f"| {name} | {len(steps)} | " + " | ".join(cells) + " |")


def run(folder: Path, steps: int, screenshots: Path | None) -> None:
    """Record, serve, measure."""
    dataset = record(folder)
    server = Server(folder / "job", dataset, ["--ask", "segments,outcome"], (PERSON,)).start()
    try:
        for browser in chromium():
            page: Any = Watched(browser, server, PERSON).open("episode:0")
            page.page.evaluate(WATCH)
            page.page.keyboard.press("ArrowRight")
            page.page.wait_for_timeout(3000)
            print("| steps | n | drawn p50 ms | p95 | max | painted p50 ms | p95 | max |")
            print("|---|--:|--:|--:|--:|--:|--:|--:|")
            report("no frame at all: the floor", measure(page, ("q",), steps // 2, pause_ms=(25, 35)))
            report("one frame on, a key held at 30 Hz", measure(page, ("ArrowRight",), steps, pause_ms=(25, 35)))
            report("one frame back and on", measure(page, ("ArrowLeft", "ArrowRight"), steps, pause_ms=(40, 120)))
            page.press(*["Shift+ArrowLeft"] * 20)
            ten = ("Shift+ArrowLeft", "Shift+ArrowRight")
            report("ten frames back and on", measure(page, ten, steps // 2, pause_ms=(80, 200)))
            if screenshots:
                page.page.screenshot(path=str(screenshots / "labelling.png"))
            page.close()
    finally:
        server.kill()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--screenshots", type=Path)
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, three cameras of {SIZE[0]}x{SIZE[1]}")
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), args.steps, args.screenshots)


if __name__ == "__main__":
    main()

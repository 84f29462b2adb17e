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
    """Yield a grainy table with a drawer and a block that a gripper carries: as heavy a picture as a real camera's."""
    draw = np.random.default_rng([episode, camera])
    height, width = SIZE
    rows, cells = np.mgrid[0:height, 0:width]
    shade = 1.08 - 0.3 * ((cells / width - 0.4) ** 2 + (rows / height - 0.4) ** 2)
    grain = 6 * np.sin(rows / 3.1 + 4 * np.sin(cells / 90)) + draw.normal(0, 5, SIZE)
    table = (np.array([176, 158, 136]) + grain[..., None]) * shade[..., None]
    table[:150] = (np.array([112, 120, 132]) + draw.normal(0, 4, (150, width, 1))) * shade[:150, :, None]
    table = np.clip(table, 0, 255).astype(np.uint8)
    table[300:400, 470:600] = (70, 96, 108)
    table[316:384, 486:584] = (44, 62, 70)
    for frame in range(LENGTH):
        image = table.copy()
        carried = 0.5 - 0.5 * np.cos(np.pi * frame / LENGTH + 0.1 * camera)
        x = int(90 + 400 * carried)
        y = int(320 - 150 * np.sin(np.pi * carried) + 20 * camera)
        for left in (x - 14, x + 56):
            image[max(0, y - 90) : y + 50, left : left + 14] = (58, 61, 68)
        image[max(0, y - 130) : max(1, y - 84), x - 14 : x + 70] = (40, 43, 50)
        image[y : y + 56, x : x + 56] = (203, 84, 52)
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
    server = Server(folder / "job", ["--dataset", dataset, "--ask", "segments,outcome"], (PERSON,)).start()
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

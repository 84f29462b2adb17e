"""Write the tables of docs/scaling.md from the measured costs. A test fails when the page is stale."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from robolift.planner import costs, dataset_cli, forecast_table
from robolift.planner.assumed import assumptions
from robolift.planner.forecast import HOUR, Assumptions, Forecast, StageForecast, forecast
from robolift.planner.recordings import Camera, Recordings

TARGET = Path(__file__).parent / "scaling.md"
MARKED = "<!-- begin: {name} -->\n{text}\n<!-- end: {name} -->"
EPISODE_S, FPS = 60, 30
BYTES_OF_A_FRAME = 3 * 13_500
"""Of three AV1 pictures of 480x640 as LeRobot encodes them; noisy ones, more than most robots see."""
ROW_BYTES = 120
FILE_BYTES = {"data": 100 << 20, "video": 200 << 20}
"""At which LeRobot closes a packed file."""
PIPELINES = ("recap", "stage_advantage")
COMPARED: dict[str, Callable[[StageForecast], float]] = {
    "GPU-hours": lambda stage: stage.gpu_s,
    "CPU-hours": lambda stage: stage.cpu_s,
    "requests": lambda stage: sum(stage.requests.values()),
}


def robot(hours: float) -> Recordings:
    """Return what a robot with three cameras records in so many hours, packed as v3.0."""
    frames = hours * HOUR * FPS
    sizes = {"data": frames * ROW_BYTES, "video": frames * BYTES_OF_A_FRAME}
    files = {name: max(1.0, size / FILE_BYTES[name]) for name, size in sizes.items()}
    return Recordings(
        episodes=hours * HOUR / EPISODE_S,
        frames=frames,
        fps=FPS,
        tasks=1,
        cameras=tuple(Camera(name=name, height=480, width=640, codec="av1") for name in ("left", "right", "top")),
        data_files=files["data"],
        video_files=files["video"],
        data_bytes=sizes["data"],
        video_bytes=sizes["video"],
    )


def assumed(pipeline: str) -> Assumptions:
    """Return the defaults of the command."""
    parser = argparse.ArgumentParser()
    dataset_cli.add_arguments(parser)
    given = parser.parse_args(["--dataset", "unused", "--pipeline", pipeline])
    for name in ("gpus", "tflops", "mfu"):
        setattr(given, name, None)
    dataset_cli.fill_in(given)
    return assumptions(given, cameras=3)


def forecasts(pipeline: str) -> list[Forecast]:
    """Return the forecasts for the hours that the command takes by itself."""
    return [forecast(pipeline, robot(hours), costs.load(), assumed(pipeline)) for hours in dataset_cli.HOURS]


def tables() -> str:
    """Return the tables, with what was assumed and the limits that are met."""
    measured = costs.load().measured
    lines = [
        f"Measured on {measured['cores']} cores of {measured['cpu']} at a load of {measured['load']:g}, "
        f"{measured['date']}. Assumed:",
        "",
    ]
    notes = {name: forecast_table.assumptions(name, robot(1), assumed(name)) for name in PIPELINES}
    lines += [f"- {note}" for note in notes["recap"]]
    lines += [f"- stage_advantage: {note}" for note in notes["stage_advantage"] if note not in notes["recap"]]
    for pipeline in PIPELINES:
        for found in forecasts(pipeline):
            lines += ["", f"**{pipeline}, {forecast_table.headline(found.recordings)}**", ""]
            lines += [forecast_table.markdown(found), ""]
            lines += [f"- {text}" for text in forecast_table.remarks(found, assumed(pipeline))]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def shares() -> str:
    """Return which stages take most of GPUs, CPUs and requests."""
    lines = []
    for found in forecasts("recap"):
        said = []
        for what, of in COMPARED.items():
            whole = sum(of(stage) for stage in found.stages)
            first = max(found.stages, key=of)
            said.append(f"{of(first) / whole:.0%} of {what} are of `{first.step.stage}`" if whole else f"no {what}")
        lines.append(f"- At {forecast_table.number(found.recordings.hours)} h {'; '.join(said)}.")
    return "\n".join(lines)


def render(page: str) -> str:
    """Return the page with its marked parts written anew."""
    for name, text in (("tables", tables()), ("shares", shares())):
        block = MARKED.format(name=name, text=text)
        page, count = re.subn(f"<!-- begin: {name} -->.*?<!-- end: {name} -->", lambda _, b=block: b, page, flags=re.S)
        assert count == 1, f"{TARGET} has {count} parts {name}"
    return page


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text(encoding="utf-8")), encoding="utf-8")

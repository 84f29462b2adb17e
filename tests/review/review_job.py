"""A labelling job to open in a browser: frames that carry their number, a real server, a page that is watched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from coded_dataset import FEATURES, FPS, columns
from coded_video import coded_frames
from labelled import publish
from loopback import free_port

from robolift.annotators.review.events import Event, list_objects, read_object
from robolift.annotators.review.fold import State, fold
from robolift.annotators.review.leases import Leases
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.manifest import Manifest
from robolift.schema import Kind
from robolift.stages.stage import execute

SIZE = (64, 128)
CAMERAS = ("observation.images.left_wrist", "observation.images.right_wrist", "observation.images.top")
LENGTHS = (150, *[12] * 24)
START_S = 60

READ_CODES = """
() => [...document.querySelectorAll("#cameras canvas")].map((canvas) => {
  const { width, height } = canvas, bar = width / 16;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const bit = (k, row) => (pixels[4 * (row * width + Math.floor((k + 0.5) * bar))] > 115 ? 1 << k : 0);
  const read = (row) => Array.from({ length: 16 }, (_, k) => bit(k, row)).reduce((sum, value) => sum + value, 0);
  return { frame: read(height / 4), code: read((3 * height) / 4) };
})
"""
"""Reads the bars of ``coded_video`` off every canvas: the frame's number, and episode and camera as one code."""


def code_of(episode: int, camera: int) -> int:
    return 8 * episode + camera


def write_coded(path: Path, *, lengths: Sequence[int] = LENGTHS, size: tuple[int, int] = SIZE) -> Manifest:
    """Write and import a dataset whose every picture says which episode, camera and frame it is."""
    writer = LeRobotWriter(
        path / "recorded",
        fps=FPS,
        features=FEATURES,
        cameras=dict.fromkeys(CAMERAS, size),
        robot_type="sawyer",
        version="v3.0",
    )
    for episode, length in enumerate(lengths):
        writer.add_episode(
            columns(episode, length),
            videos={name: coded_frames(code_of(episode, camera), length, size) for camera, name in enumerate(CAMERAS)},
            task="put the puck into the drawer",
            extra={"outcome": "success"},
        )
    writer.finish()
    config = {"dataset_uri": str(path / "recorded"), "outcome_key": "outcome"}
    return execute("import_dataset", config, {}, str(path / "runs"))


def write_values(root: Path, dataset: Manifest, lengths: Sequence[int] = LENGTHS) -> Manifest:
    """Publish values that rise from -1 to 0 over each episode."""
    frames = np.concatenate([np.arange(length) for length in lengths])
    ends = np.repeat(lengths, lengths)
    table = {
        "episode_index": np.repeat(np.arange(len(lengths)), lengths).tolist(),
        "frame_index": frames.tolist(),
        "value": (frames / (ends - 1) - 1).tolist(),
        "value_std": [0.0] * len(frames),
        "relative_advantage": [None] * len(frames),
    }
    return publish(str(root), "merge_values", Kind.VALUES, tables={"values": table}, inputs={"dataset": [dataset]})


@dataclass
class Server:
    """A labelling server in a process of its own, on one labels folder; it can be killed and started again."""

    folder: Path
    options: Sequence[str]
    people: Sequence[str]
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tokens = self.folder / "tokens.yaml"
        tokens.write_text("".join(f"{name}: {self.token(name)}\n" for name in self.people))
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def labels(self) -> str:
        return str(self.folder / "labels")

    def token(self, name: str) -> str:
        return f"token-of-{name}-0123456789"

    def start(self) -> Server:
        command = [sys.executable, "-m", "robolift", "review", "--labels", self.labels]
        command += ["--port", str(self.port), "--tokens", str(self.folder / "tokens.yaml"), *self.options]
        log = (self.folder / "log").open("a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=dict(os.environ))
        log.close()
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/healthz", timeout=5):
                    return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def free(self, item: str, *, keep: Collection[str]) -> None:
        """Give back the lease of a page that is closed, which a slow browser may not have done yet."""
        leases = Leases(self.labels, lease_s=600)
        held = leases.current(item)
        if held is not None and leases.is_running(held) and held.annotator not in keep:
            leases.release(item, held.epoch, annotator=held.annotator, session=held.session)

    def events(self, annotator: str, item: str, lengths: Sequence[int] = LENGTHS) -> list[Event]:
        """Return what is stored of a person on an item, in order."""
        found = [event for event in self._all(lengths) if (event.annotator, event.item) == (annotator, item)]
        return sorted(found, key=lambda event: event.order)

    def state(self, annotator: str, item: str, lengths: Sequence[int] = LENGTHS) -> State:
        """Return what the stored events amount to."""
        return fold(self._all(lengths), lengths)[annotator, item]

    def _all(self, lengths: Sequence[int]) -> list[Event]:
        names = list_objects(self.labels)
        return [event for name in names for event in read_object(f"{self.labels}/{name}", lengths)]


TELLING = """
[...document.querySelectorAll("dialog[open], #waiting, #message, #notice, #pair-notice, #saved, #live")]
  .map((e) => `${e.id}${e.hidden ? " (hidden)" : ""}: ${e.innerText}`)
"""


LISTENING = """
window.told = [];
document.addEventListener("DOMContentLoaded", () => {
  const live = document.querySelector("#live");
  if (live) new MutationObserver(() => window.told.push(live.textContent)).observe(live, { childList: true });
});
"""
"""Keeps all that was told: the next message may come before a slow machine has looked."""


class Watched:
    """A page of one annotator; ``close`` fails where the browser had anything to complain about."""

    def __init__(self, browser: Any, server: Server, annotator: str, **options: Any) -> None:
        self.server = server
        self.annotator = annotator
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.add_init_script(
            "window.violations = []; document.addEventListener('securitypolicyviolation', "
            "(event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));"
        )
        self.context.add_init_script(LISTENING)
        signed_in = self.context.request.get(f"{server.address}/?token={server.token(annotator)}")
        assert signed_in.ok
        self.page = self.context.new_page()
        self.page.set_default_timeout(45_000)
        self.complaints: list[str] = []
        self.forgiven = re.compile("^$")
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error {error}"))
        self.page.on("request", lambda request: self._same_origin(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)

    def _same_origin(self, url: str) -> None:
        if not url.startswith((self.server.address, "blob:", "data:", "about:")):
            self.complaints.append(f"request to {url}")

    def open(self, item: str) -> Watched:
        """Go to an item and wait until it is shown and its events are there."""
        self.page.goto(f"{self.server.address}/#{item}")
        self.page.wait_for_selector("#cameras[data-frame]:visible, #message:visible, #clip-a[data-frame]:visible")
        return self

    def press(self, *keys: str) -> Watched:
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def go(self, frame: int) -> Watched:
        """Step to a frame with the arrow keys, as a person would."""
        here = int(self.page.get_attribute("#cameras", "data-frame") or 0)
        while here != frame:
            far = abs(frame - here) >= 10
            key = "ArrowRight" if frame > here else "ArrowLeft"
            self.press(f"Shift+{key}" if far else key)
            here += (10 if far else 1) * (1 if frame > here else -1)
        self.shows(frame)
        return self

    def shows(self, frame: int) -> None:
        """Wait until a frame is on the canvases."""
        deadline = time.monotonic() + START_S  # twice what the page waits for an answer before it asks again
        while self.page.get_attribute("#cameras", "data-frame") != str(frame):
            if time.monotonic() > deadline:
                shown = self.page.get_attribute("#cameras", "data-frame")
                raise AssertionError(f"frame {frame} is not shown, {shown} is; {self.tale()}")
            self.page.wait_for_timeout(10)

    def cut_off(self, addresses: str) -> Callable[[], None]:
        """Answer no request to these addresses until what is returned is called.

        The route stays afterwards: one that is taken away while it holds a request may leave that without an answer.
        """
        cut = [True]
        self.context.route(addresses, lambda route: route.abort() if cut else route.continue_())
        return cut.clear

    def left(self, item: str) -> None:
        """Wait until the page has gone on from an item."""
        deadline = time.monotonic() + START_S
        while self.page.url.endswith(f"#{item}"):
            assert time.monotonic() < deadline, f"still at {item}; {self.tale()}"
            self.page.wait_for_timeout(50)

    def tale(self) -> str:
        """Return what the page tells of its state, for the message of a test that waited in vain."""
        told = self.page.evaluate(TELLING)
        return f"{told}, complaints: {self.complaints}"

    def saved(self) -> Watched:
        self.page.wait_for_selector("#saved[data-state='saved']")
        return self

    def hears(self, text: str) -> None:
        """Wait until the page has told this, though it may have told more since."""
        deadline = time.monotonic() + START_S
        while text not in (told := self.page.evaluate("window.told")):
            assert time.monotonic() < deadline, f"{text!r} was not told, but {told}; {self.tale()}"
            self.page.wait_for_timeout(10)

    def reads(self, selector: str, text: str) -> None:
        """Wait until an element's text is this one: a slow browser paints after the key has come back."""
        self._expect(f"{selector} >> nth=0").to_have_text(text, use_inner_text=True)

    def tells(self, selector: str, text: str) -> None:
        """Wait until an element's text holds this one."""
        self._expect(f"{selector} >> nth=0").to_contain_text(text, use_inner_text=True)

    def counts(self, selector: str, number: int) -> None:
        """Wait until there are so many elements."""
        self._expect(selector).to_have_count(number)

    def settles(self, script: str, wanted: Any) -> None:
        """Wait until a script returns this: the page may not have drawn yet what was asked of it."""
        deadline = time.monotonic() + START_S / 2
        while (found := self.page.evaluate(script)) != wanted:
            assert time.monotonic() < deadline, f"{found}, not {wanted}; {self.tale()}"
            self.page.wait_for_timeout(20)

    def _expect(self, selector: str) -> Any:
        from playwright.sync_api import expect

        expect.set_options(timeout=START_S * 500)
        return expect(self.page.locator(selector))

    def codes(self) -> list[dict[str, int]]:
        return list(self.page.evaluate(READ_CODES))

    def forgive(self, pattern: str) -> None:
        """Accept complaints about answers that the test provokes."""
        self.forgiven = re.compile(pattern)

    def close(self) -> None:
        violations = self.page.evaluate("window.violations")
        self.page.goto("about:blank")  # leaving gives the lease back
        self.page.wait_for_timeout(100)
        self.context.close()
        wrong = [complaint for complaint in [*violations, *self.complaints] if not self.forgiven.search(complaint)]
        assert not wrong, wrong


def chromium() -> Iterator[Any]:
    """Start Debian's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()

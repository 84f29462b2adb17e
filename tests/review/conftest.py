"""What the tests of the labelling page share: coded frames, a browser, a server; each test has items of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from review_job import Server, Watched, chromium, write_coded, write_values

from robolift.manifest import Manifest

PEOPLE = tuple(f"person{number}" for number in range(12))
PAIRS = "pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b\n" + "".join(
    f"p{number},1,0,8,2,2,12\n" for number in range(4)
)


@pytest.fixture(scope="session")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_coded(tmp_path_factory.mktemp("coded"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.fixture(scope="session")
def server(coded: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Asks for segments, the outcome and two task stages, of everybody about everything; shows values afterwards."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "pairs.csv").write_text(PAIRS)
    values = write_values(folder / "runs", coded)
    options = ["--dataset", coded.uri, "--ask", "segments,outcome,stages", "--num-task-stages", "2", "--overlap", "1"]
    options += ["--pairs", str(folder / "pairs.csv"), "--values", values.uri]
    served = Server(folder, options, PEOPLE).start()
    yield served
    served.kill()


@pytest.fixture
def serve(coded: Manifest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server for one test."""
    started: list[Server] = []

    def serve(ask: str) -> Server:
        started.append(Server(tmp_path / "job", ["--dataset", coded.uri, "--ask", ask], PEOPLE[:1]).start())
        return started[-1]

    yield serve
    for server in started:
        server.kill()


@pytest.fixture
def visit(browser: Any, server: Server, serve: Any) -> Iterator[Callable[..., Watched]]:
    """Opens the page as somebody; at the end no page may have complained."""
    opened: list[Watched] = []

    def visit(annotator: str, item: str, *, at: Server | None = None, **options: Any) -> Watched:
        (at or server).free(item, keep=[page.annotator for page in opened])
        page = Watched(browser, at or server, annotator, **options)
        opened.append(page)
        return page.open(item)

    yield visit
    for page in opened:
        page.close()

"""docs/submission.md: its commands are ones that the parser and the Makefile know."""

import re
import shlex
from pathlib import Path

import pytest

from components import _arguments, _kubeflow_errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "submission.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
MAKE = [line for line in LINES if line.startswith("make ")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_page_shows_every_command():
    assert {shlex.split(line)[1] for line in MAKE} == {"submit", "upload", "schedule", "status", "logs", "cancel"}


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_what_the_page_tells_it(line):
    target, *given = shlex.split(line)[1:]
    assert re.search(rf"^{target}: ", MAKEFILE, re.MULTILINE)
    for word in given:
        assert re.search(rf"\$\({word.split('=')[0]}\)|call option,--[a-z-]+,{word.split('=')[0]}\)", MAKEFILE), word


def test_pipeline_py_knows_what_the_page_tells_it():
    commands = [line for line in LINES if "pipeline.py" in line]
    assert len(commands) == 1
    args = _arguments.parser().parse_args(shlex.split(commands[0])[2:])
    assert (args.command, args.release, args.wait) == ("submit", True, True)
    options = set(re.findall(r"`(--[a-z-]+)`", PAGE))
    known = (ROOT / "components" / "_arguments.py").read_text(encoding="utf-8")
    assert options
    assert [option for option in options if f'"{option}"' not in known] == []


def test_the_page_names_the_errors_by_their_words():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "components").glob("_*.py"))
    rows = re.findall(r"^\| `(.*?)` \|", PAGE.split("## When it is refused")[1], re.MULTILINE)
    assert len(rows) == 10
    for row in rows:
        assert re.sub(r"\d+$", "{status}", row) in source, row
    assert f"| {_kubeflow_errors.EXIT_UNAVAILABLE} |" in PAGE

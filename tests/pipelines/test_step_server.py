"""Steps of a local run: forks of one process that are processes of their own all the same."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components import _step_server
from components._step import ADDRESS_VARIABLE

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="steps are forked on Linux alone")
RESULT = "result.json"
STEP = "from kfp import dsl\n\ndef step(word: str) -> str:\n"


def start(body: str, address: str, **variables: str) -> subprocess.Popen[str]:
    """Start a step as KFP does; its function gets ``word``."""
    source = STEP + "".join(f"    {line}\n" for line in body.splitlines())
    place = variables.pop("place")
    outputs = {"parameters": {"Output": {"outputFile": f"{place}/unused"}}, "outputFile": f"{place}/{RESULT}"}
    told = {"inputs": {"parameterValues": {"word": "hello"}}, "outputs": outputs}
    words = ["--executor_input", json.dumps(told), "--function_to_execute", "step"]
    command = [sys.executable if word == "python3" else word for word in _step_server.command(source)]
    return subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, ADDRESS_VARIABLE: address, **variables},
        cwd=place,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def result(place: Path) -> str:
    return json.loads((place / RESULT).read_text())["parameterValues"]["Output"]


@pytest.fixture(scope="module")
def address():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with _step_server.serving() as served:
        yield served
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@LINUX
def test_a_step_has_its_own_output_environment_folder_and_result(address, tmp_path):
    body = (
        "import os, sys, subprocess\n"
        "print('out', os.environ['ONLY_HERE'], os.getcwd(), sys.stdin.read() == '', flush=True)\n"
        "subprocess.run(['sh', '-c', 'echo from a child; echo err >&2; cat'])\n"
        "return word + '!'"
    )
    code, said = finish(start(body, address, place=str(tmp_path), ONLY_HERE="yes"))
    assert code == 0, said
    assert f"out yes {tmp_path} True" in said
    assert "from a child\nerr\n" in said
    assert result(tmp_path) == "hello!"


@LINUX
@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("import sys; sys.exit(65)", 65, ""),
        ("raise ValueError('no such thing')", 1, "ValueError: no such thing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, ""),
        ("import os; os._exit(7)", 7, ""),
    ],
)
def test_a_step_ends_as_its_process_ended(address, tmp_path, body, code, told):
    ended, said = finish(start(body, address, place=str(tmp_path)))
    assert ended == code, said
    assert told in said


@LINUX
def test_steps_run_side_by_side_and_share_nothing_they_change(address, tmp_path):
    waits = (
        "import json, time, pathlib\n"
        "json.changed = True\n"
        "pathlib.Path('ready').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        "return word"
    )
    first = start(waits, address, place=str(tmp_path))
    until(lambda: (tmp_path / "ready").exists())
    other = tmp_path / "other"
    other.mkdir()
    code, said = finish(start("import json\nreturn str(hasattr(json, 'changed'))", address, place=str(other)))
    assert (code, result(other)) == (0, "False"), said
    (tmp_path / "go").touch()
    assert finish(first)[0] == 0


@LINUX
def test_what_a_step_registers_for_its_end_is_called_and_nothing_is_left(address, tmp_path):
    body = (
        "import atexit, pathlib, tempfile\n"
        "atexit.register(lambda: pathlib.Path('ended').touch())\n"
        "global kept; kept = tempfile.TemporaryDirectory(dir='.')\n"
        "return word"
    )
    code, said = finish(start(body, address, place=str(tmp_path)))
    assert code == 0, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", RESULT]


@LINUX
def test_the_server_has_one_thread_and_ends_with_who_started_it(tmp_path):
    script = (
        "import sys, time\nfrom components import _step_server\n"
        "with _step_server.serving() as address:\n    print(address, flush=True)\n    time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        address = owner.stdout.readline().strip()
        body = (
            "import os, pathlib\n"
            "tasks = pathlib.Path(f'/proc/{os.getppid()}/task').iterdir()\n"
            "return ' '.join([str(os.getppid()), *((task / 'comm').read_text().strip() for task in tasks)])"
        )
        code, said = finish(start(body, address, place=str(tmp_path)))
        assert code == 0, said
        server, *threads = result(tmp_path).split()
        # Arrow's allocator has a thread of its own and knows how to be forked.
        assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1
    finally:
        owner.kill()
        owner.communicate()
    until(lambda: not is_running(server))
    # Refused at once: nobody would ever answer.
    assert finish(start("return word", address, place=str(tmp_path)))[0] != 0


def test_where_steps_cannot_be_forked_there_is_no_server(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with _step_server.serving() as address:
        assert address == ""


def is_running(process_id: str) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)

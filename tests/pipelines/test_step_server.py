"""Steps of a local run: forks of one process that are processes of their own all the same."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp.local.subprocess_task_handler import replace_python_executable

from components import _step_server
from components._step import ADDRESS_VARIABLE, LOST
from components.check_run.component import check_run

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="steps are forked on Linux alone")
KFPS = check_run.component_spec.implementation.container.command[:3]
"""The command that KFP gives a component, without the source."""
RESULT = "result.json"
STEP = "from kfp import dsl\n\ndef step(word: str) -> str:\n"
PARENT = (
    "import os, pathlib\n"
    "words = pathlib.Path(f'/proc/{os.getppid()}/cmdline').read_text().split(chr(0))\n"
    "return ' ' + words[2]"
)
"""Returns what the parent is: ``python -m components._step_server``, or KFP's shell."""
WORKS = (
    "import os, subprocess, time\n"
    "child = subprocess.Popen(['sleep', '600'])\n"
    "with open('pids.part', 'w') as file: file.write(f'{os.getpid()} {child.pid}')\n"
    "os.rename('pids.part', 'pids')\n"
    "time.sleep(600)"
)
"""Goes on with a child, until both are ended."""


def start(body: str, address: str, **variables: str) -> subprocess.Popen[str]:
    """Start a step as KFP does; its function gets ``word``."""
    source = STEP + "".join(f"    {line}\n" for line in body.splitlines())
    place, group = variables.pop("place"), variables.pop("group", None)
    outputs = {"parameters": {"Output": {"outputFile": f"{place}/unused"}}, "outputFile": f"{place}/{RESULT}"}
    told = {"inputs": {"parameterValues": {"word": "hello"}}, "outputs": outputs}
    words = ["--executor_input", json.dumps(told), "--function_to_execute", "step"]
    command = replace_python_executable(_step_server.command([*KFPS, source]), sys.executable)
    return subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, ADDRESS_VARIABLE: address, **variables},
        cwd=place,
        process_group=None if group is None else int(group),
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
def test_a_step_ends_as_an_interpreter_does(address, tmp_path):
    body = (
        "import atexit, pathlib, threading\n"
        "log = pathlib.Path('log').open('a', buffering=1)\n"
        "leaving = threading.Event()\n"
        "def late():\n"
        "    threading.main_thread().join(); log.write('thread ')\n"
        "atexit.register(lambda: log.write('atexit'))\n"
        "threading.Thread(target=late).start()\n"
        "import __main__; log.write(__main__.__spec__.name + ' ')\n"
        "return word"
    )
    code, said = finish(start(body, address, place=str(tmp_path)))
    assert code == 0, said
    assert (tmp_path / "log").read_text() == "kfp.dsl.executor_main thread atexit"


@LINUX
def test_a_step_does_not_wait_for_what_it_leaves(address, tmp_path):
    body = (
        "import os, time\n"
        "child = os.fork()\n"
        "if child: return str(child)\n"
        "[os.close(descriptor) for descriptor in (0, 1, 2)]\n"
        "time.sleep(600)"
    )
    code, said = finish(start(body, address, place=str(tmp_path)))
    assert code == 0, said
    assert is_running(result(tmp_path))
    os.kill(int(result(tmp_path)), signal.SIGKILL)


@LINUX
def test_clients_that_go_away_or_stall_hold_nobody_up(address, tmp_path):
    with socket.socket(socket.AF_UNIX) as gone, socket.socket(socket.AF_UNIX) as stalls:
        for client in (gone, stalls):
            client.connect("\0" + address)
        gone.close()
        code, said = finish(start(PARENT, address, place=str(tmp_path)))
        assert code == 0, said
        assert result(tmp_path).strip() == "components._step_server"


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_step_whose_client_is_ended_ends_with_its_children(address, tmp_path, number):
    step = start(WORKS, address, place=str(tmp_path))
    working = pids(tmp_path)
    step.send_signal(number)
    assert finish(step)[0] == -number
    until(lambda: not any(map(is_running, working)))


@pytest.fixture
def owner(tmp_path):
    """Start a process that has a server and a process group of its own, in a package tree of its own."""
    started = []

    def begin(top: Path = ROOT, grace_s: float = 60.0) -> tuple[subprocess.Popen[str], str]:
        script = (
            "import sys, time\nfrom components import _step_server\n"
            f"with _step_server.serving(grace_s={grace_s}) as address:\n"
            "    print(address, flush=True)\n    sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=top,
            env={**os.environ, "PYTHONPATH": str(top), "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@LINUX
def test_the_server_has_one_thread(address, tmp_path):
    body = (
        "import os, pathlib\n"
        "tasks = pathlib.Path(f'/proc/{os.getppid()}/task').iterdir()\n"
        "return ' '.join((task / 'comm').read_text().strip() for task in tasks)"
    )
    code, said = finish(start(body, address, place=str(tmp_path)))
    assert code == 0, said
    # Arrow's allocator has a thread of its own and knows how to be forked.
    assert len([name for name in result(tmp_path).split() if name != "jemalloc_bg_thd"]) == 1


@LINUX
@pytest.mark.parametrize("ignores", [False, True])
def test_nothing_of_a_run_outlives_it_when_it_is_killed(owner, tmp_path, ignores):
    place = tmp_path / "place"
    place.mkdir()
    process, served = owner(grace_s=1.0 if ignores else 60.0)
    body = ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignores else "") + WORKS
    step = start(body, served, place=str(place))
    working = pids(place)
    process.kill()
    until(lambda: not any(map(is_running, working)))
    assert finish(step)[0] == 128 + (9 if ignores else 15)
    until(lambda: [path.name for path in tmp_path.iterdir()] == ["place"])  # the steps' sources are gone
    # Nobody would ever answer.
    code, said = finish(start(PARENT, served, place=str(place)))
    assert code == 0, said
    assert result(place).strip() != "components._step_server"


@LINUX
def test_a_step_ends_with_a_server_that_is_killed(owner, tmp_path):
    _, served = owner()
    step = start(WORKS.replace("'sleep', '600'", "'true'"), served, place=str(tmp_path))
    working, _ = pids(tmp_path)
    server = Path(f"/proc/{working}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(server), signal.SIGKILL)
    code, said = finish(step)
    assert code == LOST
    assert "the process that runs this step was ended" in said
    until(lambda: not is_running(working))


@LINUX
def test_ctrl_c_reaches_a_step_once_and_its_run_waits_for_it(owner, tmp_path):
    process, served = owner()
    body = (
        "import pathlib, os, time\n"
        "pathlib.Path('pids.part').write_text(str(os.getpid())); os.rename('pids.part', 'pids')\n"
        "try: time.sleep(600)\n"
        "finally:\n"
        "    pathlib.Path('cleaning').touch()\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        "    pathlib.Path('clean').touch()"
    )
    step = start(body, served, place=str(tmp_path), group=str(process.pid))
    pids(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    until(lambda: (tmp_path / "cleaning").exists())
    assert step.wait(60) == -signal.SIGINT
    assert process.poll() is None
    (tmp_path / "go").touch()
    process.wait(60)
    finish(step)
    assert (tmp_path / "clean").exists()


@pytest.fixture
def tree(tmp_path):
    """Make a package of our name with the modules that the server imports, and the server beside it."""
    top = tmp_path / "tree"
    for module in ("robolift", "robolift/stages", "robolift/data"):
        (top / module).mkdir(parents=True)
        (top / module / "__init__.py").touch()
    (top / "robolift/stages/component.py").touch()
    (top / "robolift/data/dataset.py").write_text("VALUE = 'before'\n")
    (top / "components").mkdir()
    for name in ("__init__.py", "_step.py", "_step_server.py"):
        shutil.copy(ROOT / "components" / name, top / "components")
    return top


VALUE = "from robolift.data.dataset import VALUE\n" + "import os\nreturn f'{VALUE} {server()}'"


@LINUX
def test_a_step_never_runs_code_that_was_read_before_it_was_changed(owner, tree, tmp_path):
    _, served = owner(tree)

    def seen() -> tuple[str, bool]:
        body = f"from robolift.data.dataset import VALUE\n{PARENT.replace('return ', 'return VALUE + ')}"
        code, said = finish(start(body, served, place=str(tmp_path), PYTHONPATH=str(tree)))
        assert code == 0, said
        value, _, parent = result(tmp_path).partition(" ")
        return value, parent == "components._step_server"

    assert seen() == ("before", True)
    (tree / "robolift/data/dataset.py").write_text("VALUE = 'behind'\n")  # as long as it was
    assert seen() == ("behind", False)
    (tree / "robolift/data/dataset.py").write_text("VALUE = 'before'\n")
    assert seen() == ("before", False)


@LINUX
def test_a_step_says_itself_what_the_server_could_not_import(owner, tree, tmp_path):
    (tree / "robolift/data/dataset.py").write_text("VALUE =\n")
    _, served = owner(tree)
    code, said = finish(start("import robolift.data.dataset", served, place=str(tmp_path), PYTHONPATH=str(tree)))
    assert code == 1
    assert "SyntaxError: invalid syntax" in said
    code, said = finish(start(PARENT, served, place=str(tmp_path), PYTHONPATH=str(tree)))
    assert code == 0, said
    assert result(tmp_path).endswith(" components._step_server")


def test_where_steps_cannot_be_forked_there_is_no_server(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with _step_server.serving() as address:
        assert address == ""


def pids(place: Path) -> list[str]:
    """Return the numbers of the processes of a step that has begun."""
    until(lambda: (place / "pids").exists())
    return (place / "pids").read_text().split()


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

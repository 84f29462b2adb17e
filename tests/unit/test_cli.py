from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import toy_stage
import yaml

from robolift import __version__, storage
from robolift.__main__ import ADDRESS, apply_overrides, main
from robolift.errors import UsageError
from robolift.schema import Kind

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE)}


@pytest.fixture
def cli(monkeypatch, tmp_path, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    toy_stage.install(monkeypatch)

    def call(*args: str, config: object | None = None) -> tuple[int, str, str]:
        words = [str(arg) for arg in args]
        if config is not None:
            (tmp_path / "config.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
            words += ["--config", str(tmp_path / "config.yaml")]
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_a_stage_runs_from_a_file_and_prints_where_its_output_lies(cli, tmp_path):
    config = {"output_root": str(tmp_path / "runs"), "config": {"rows": 2}}
    code, out, err = cli("toy", config=config)

    assert code == 0
    uri = out.strip()
    assert uri.startswith(f"file://{tmp_path}/runs/toy/")
    assert storage.read_json(f"{uri}/manifest.json")["counts"] == {"frames": 2}
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["started", "finished"]

    code, out, err = cli("toy", config=config)
    assert (code, out.strip()) == (0, uri)
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["reused"]


def test_inputs_come_from_the_file_or_the_command_line(cli, tmp_path):
    root = str(tmp_path / "runs")
    first = cli("toy", config={"output_root": root})[1].strip()
    second = cli("toy", "--set", f"inputs.others=[{first}, {first}]", "--set", "rows=1", config={"output_root": root})[
        1
    ]

    inputs = storage.read_json(f"{second.strip()}/manifest.json")["inputs"]
    assert inputs == {"others": [{"under": first.rpartition("/")[0], "digests": [first.rpartition("/")[2]] * 2}]}


def test_a_dry_run_checks_everything_and_writes_nothing(cli, tmp_path):
    config = {"output_root": str(tmp_path / "runs"), "config": {"rows": 2}}
    code, out, _ = cli("toy", "--dry-run", config=config)
    plan = json.loads(out)

    assert code == 0
    assert plan["reuse"] is False
    assert plan["config"]["rows"] == 2
    assert not (tmp_path / "runs").exists()
    assert toy_stage.runs == 0

    assert cli("toy", config=config)[1].strip() == plan["uri"]
    assert json.loads(cli("toy", "--dry-run", config=config)[1])["reuse"] is True


def test_a_dry_run_refuses_what_a_run_would_refuse(cli, tmp_path):
    root = str(tmp_path / "runs")
    assert cli("toy", "--dry-run", config={"output_root": root, "config": {"rows": "x"}})[0] == 64
    assert cli("toy", "--dry-run", config={"output_root": root, "inputs": {"before": str(tmp_path)}})[0] == 65
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "config", "message"),
    [
        (["toy", "--set", "rows=x"], {}, "toy.rows: Input should be a valid integer"),
        (["toy", "--set", "lookahed=3"], {}, "toy.lookahed: Extra inputs are not permitted"),
        (["toy", "--set", "rows"], {}, "expected key=value"),
        (["toy", "--set", "=3"], {}, "expected key=value"),
        (["toy", "--set", "inputs=a"], {}, "expected key=value"),
        (["toy", "--set", "rows=[1"], {}, "--set 'rows=[1'"),
        (["toy", "--set", "rows.deep=1"], {"config": {"rows": 3}}, "rows is 3, not a mapping"),
        (["toy", "--set", "inputs.none=x"], {}, "toy has no input none; it has: before, others"),
        (["toy", "--set", "inputs.before=[a, b]"], {}, "toy takes one before, got 2"),
        (["toy", "--set", "output_root="], {}, "output_root is None, expected an address"),
        (["toy", "--set", "output_root=5"], {}, "output_root is 5, expected an address"),
        (["toy"], {"outputroot": "x"}, "unknown keys outputroot; expected output_root, inputs, config"),
        (["toy"], {"config": [1]}, "config is [1]; expected a mapping"),
        (["toy"], {"inputs": "file:///a"}, "inputs is 'file:///a'; expected a mapping"),
        (["toy"], {"inputs": {"before": {"uri": "x"}}}, "input before is {'uri': 'x'}, expected an address"),
        (["toy"], {"inputs": {"before": 5}}, "input before is 5, expected an address"),
        (["toy"], "[1, 2]", "holds [1, 2]; expected the keys output_root, inputs, config"),
        (["toy"], "a: [", "is not YAML"),
        (["train"], None, "invalid choice: 'train'"),
        (["toy", "--confg", "x"], None, "unrecognized arguments: --confg x"),
        ([], None, "the following arguments are required: STAGE"),
    ],
)
def test_a_wrong_call_ends_with_64_and_says_why(cli, tmp_path, args, config, message):
    if isinstance(config, dict):
        config = {"output_root": str(tmp_path / "runs"), **config}
    code, out, err = cli(*args, config=config)

    assert code == 64
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_no_output_root_is_a_wrong_call(cli):
    code, _, err = cli("toy")
    assert code == 64
    assert "output_root is None" in err


def test_an_unknown_log_level_is_a_wrong_call(cli, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_LOG_LEVEL", "loud")
    code, _, err = cli("toy")
    assert code == 64
    assert "log level 'loud'" in err


@pytest.mark.parametrize("file", ["none.yaml", "."])
def test_a_config_file_that_cannot_be_read_is_wrong_data(cli, tmp_path, file):
    code, _, err = cli("toy", "--config", str(tmp_path / file))
    assert code == 65
    assert str(tmp_path) in err


def test_wrong_data_ends_with_65_and_says_where(cli, tmp_path):
    code, out, err = cli("toy", config={"output_root": str(tmp_path / "runs"), "config": {"fault": "data"}})

    assert (code, out) == (65, "")
    assert err.endswith("error: episode 3 has no video\n  where: videos/3.mp4\n")


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [("s4://bucket/square", 64, "no store for s4://bucket"), ("s3://bucket/square", 65, "no credentials to read it")],
)
def test_an_address_that_leads_nowhere_ends_with_the_right_code(cli, tmp_path, monkeypatch, address, code, message):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    arguments = ["import_dataset", "--set", f"output_root={tmp_path}/runs", "--set", f"dataset_uri={address}"]
    found, _, err = cli(*arguments)
    s3.clear_instance_cache()
    assert found == code
    assert message in err


def test_a_bug_ends_with_70_and_shows_the_trace(cli, tmp_path):
    code, out, err = cli("toy", config={"output_root": str(tmp_path / "runs"), "config": {"fault": "bug"}})

    assert (code, out) == (70, "")
    last = json.loads(err.splitlines()[-1])
    assert last["event"] == "internal error: please report this"
    assert "RuntimeError: a bug" in last["exception"]
    assert list((tmp_path / "runs").rglob("*.json")) == []


def test_describing_a_stage_shows_inputs_output_and_every_field(cli):
    code, out, _ = cli("toy", "--describe")

    assert code == 0
    assert out.splitlines() == [
        "toy: Counts to a number.",
        "inputs:",
        "  before: ValueTargets (optional)",
        "  others: ValueTargets (optional) (many)",
        "output: ValueTargets",
        "config:",
        "  rows = 3",
        "      How many rows to write.",
        "  seed = 0",
        "      Seed of the run.",
        "  num_workers = 1",
        "      Processes; the result is the same.",
        "  note = ''",
        "      Anything.",
        "  part = Nested(size=2)",
        "      Options of a part.",
        "  scores = ()",
        "      Numbers reported as metrics.",
        "  fault = ''",
        "      What to do in the middle: data, bug, interrupt, kill, term.",
    ]


def test_a_required_field_is_described_as_required(cli, monkeypatch):
    class Config(toy_stage.StageConfig):
        """Needs a task."""

        task: str
        """The task."""
        output: Kind = Kind.VALUES
        """A choice."""

    monkeypatch.setattr(toy_stage, "Config", Config)
    assert "  task = (required)\n      The task.\n  output = 'ValueSet'\n" in cli("toy", "--describe")[1]


def test_the_version_is_shown(cli):
    assert cli("--version")[:2] == (0, f"{__version__}\n")


def test_overrides_reach_into_nested_mappings_and_leave_the_document_alone():
    document = {"output_root": "a", "inputs": {"x": "1"}, "config": {"part": {"size": 1, "kind": "b"}}}
    result = apply_overrides(
        document, ["part.size=2", "config.part.depth=[1, 2]", "inputs.y=s3://b/c", "output_root=z", "new.deep.key=null"]
    )

    assert result == {
        "output_root": "z",
        "inputs": {"x": "1", "y": "s3://b/c"},
        "config": {"part": {"size": 2, "kind": "b", "depth": [1, 2]}, "new": {"deep": {"key": None}}},
    }
    assert document == {"output_root": "a", "inputs": {"x": "1"}, "config": {"part": {"size": 1, "kind": "b"}}}


def test_values_of_overrides_may_hold_equal_signs():
    assert apply_overrides({}, ["note=a=b"])["config"] == {"note": "a=b"}
    with pytest.raises(UsageError, match="not a mapping"):
        apply_overrides({}, ["note=a", "note.b=c"])


@pytest.mark.parametrize(
    "text",
    ["/runs", "/", "./a", "../a.b/", "runs/demo-1", "1/2", "s3://bucket/x", "file:///a/b", "memory://a", "yes/no"],
)
def test_an_address_needs_no_yaml_and_is_what_yaml_makes_of_it(text):
    assert ADDRESS.fullmatch(text)
    assert yaml.safe_load(text) == text
    assert apply_overrides({}, [f"note={text}"])["config"] == {"note": text}


@pytest.mark.parametrize("text", ["10", "1e3", "yes", "~", "null", "a: /b", "[/a]", "/a: b", "/a #b", "a/b:", "- /a"])
def test_whatever_else_yaml_may_read_differently_is_left_to_it(text):
    assert not ADDRESS.fullmatch(text)
    assert apply_overrides({}, [f"note={text}"])["config"] == {"note": yaml.safe_load(text)}


def run_toy(tmp_path: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(HERE / "toy_stage.py"), "toy", "--set", f"output_root={tmp_path}/runs", *words],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_terminated_run_ends_with_143_and_leaves_nothing(tmp_path):
    child = run_toy(tmp_path, "--set", "fault=term")
    child.communicate()

    assert child.returncode == 143
    assert [p for p in (tmp_path / "runs").rglob("*") if p.is_file()] == []
    assert list((tmp_path / "runs" / "toy").iterdir()) == []


def test_a_killed_run_leaves_no_output_and_the_next_makes_it(tmp_path):
    killed = run_toy(tmp_path, "--set", "fault=kill")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "runs").rglob("manifest.json")) == []
    assert len(list((tmp_path / "runs").rglob("first.json"))) == 1  # the work it was torn from

    again = run_toy(tmp_path)
    out, _ = again.communicate()

    assert again.returncode == 0
    assert [p.name for p in (tmp_path / "runs" / "toy").iterdir()] == [out.strip().rpartition("/")[2]]


@pytest.mark.parametrize(
    ("reading", "code", "said"),
    [("storage.read_bytes", 65, "nowhere.yaml"), ("lambda *_: os.kill(os.getpid(), signal.SIGTERM)", 143, "")],
    ids=["error", "told to stop"],
)
def test_the_process_ends_with_its_code_whatever_threads_do(tmp_path, reading, code, said):
    """Threads of Arrow may abort while the interpreter is taken down; here one that never ends stands for them."""
    program = f"""
import atexit, os, runpy, signal, sys, threading
from robolift import storage
threading.Thread(target=threading.Event().wait).start()
atexit.register(lambda: print("called"))
storage.read_bytes = {reading}
sys.argv = ["robolift", "import_dataset", "--config", "nowhere.yaml"]
runpy.run_module("robolift", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (ended.returncode, ended.stdout) == (code, "called\n")
    assert said in ended.stderr


def test_on_a_terminal_the_log_is_text(tmp_path):
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, str(HERE / "toy_stage.py"), "toy", "--set", f"output_root={tmp_path}"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    out, _ = child.communicate()
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)

    assert child.returncode == 0
    assert out.decode().startswith("file://")
    assert "started" in shown
    assert "finished" in shown
    assert not shown.startswith("{")

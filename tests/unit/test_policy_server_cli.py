"""``python -m robolift serve``: options, start and end of the process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import robot_client
from loopback import free_port
from policy_server import Process, publish_small
from toy_policies import observe

from robolift.__main__ import main
from robolift.policy.checkpoint import load_policy
from robolift.policy.server import cli
from robolift.policy.server.prompt_rule import PromptLabel
from robolift.policy.serving import Policy
from robolift.schema import Kind

pytestmark = pytest.mark.filterwarnings(robot_client.QUIET)
HEAVY = ("jax", "websockets", "msgpack", "numpy")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return publish_small(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def spec(checkpoint):
    return load_policy(checkpoint.uri)[0]


def refused(capsys, *words):
    code = main(["serve", *words])
    return code, capsys.readouterr().err


def test_help_is_light_and_names_the_server():
    program = "import sys, robolift.__main__ as m\ntry: m.main(['serve', '--help'])\nexcept SystemExit: pass\n"
    program += f"print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "--prompt-label" in shown


def test_labels_on_the_command_line_are_those_of_the_rule():
    assert tuple(PromptLabel) == cli.LABELS


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_a_process_serves_until_it_is_told_to_stop(checkpoint, spec, number, code):
    with Process(checkpoint.uri, "--guidance", "2", "--prompt-label", "negative") as server:
        client = robot_client.connect(server.address)
        assert client.get_server_metadata()["checkpoint"] == checkpoint.digest
        observation = {key: array[0] for key, array in observe(spec, 1).items()}
        found = client.infer({**observation, "prompt": "fold", "seed": 3})["actions"]
        expected = Policy.load(checkpoint.uri).act(
            observe(spec, 1), prompts=["fold, Advantage: negative"], seed=[3], guidance=2.0
        )
        np.testing.assert_array_equal(found, expected[0])
        with pytest.raises(RuntimeError, match=r"observation\.state is not finite"):
            client.infer({**observation, "observation.state": np.full(3, np.inf), "prompt": "fold"})
        assert server.get("/healthz").text == "OK\n"
        ended, log = server.end(number)
        assert ended == code
    last = json.loads(log.splitlines()[-1])
    assert (last["event"], last["answers"], last["refusals"]) == ("served", 1, 1)
    assert last["infer_ms"]["p95"] > 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--guidance", "-1"], "--guidance is -1.0, expected a number from 0 on"),
        (["--guidance", "nan"], "--guidance is nan"),
        (["--max-message-mib", "0"], "--max-message-mib is 0.0, expected a number above 0"),
        (["--hung-after-s", "inf"], "--hung-after-s is inf, expected a number above 0"),
        (["--max-clients", "0"], "--max-clients is 0, expected 1 or more"),
        (["--port", "70000"], "choose another --port"),
        (["--host", "no.such.host.invalid"], "choose another --port"),
    ],
)
def test_options_that_dont_fit_are_refused(capsys, checkpoint, options, problem):
    code, said = refused(capsys, "--checkpoint", checkpoint.uri, *options)
    assert (code, problem in said) == (64, True)


def test_a_label_that_was_not_trained_is_refused(capsys, tmp_path):
    bare = publish_small(tmp_path, trained_prompts=(0,)).uri
    code, said = refused(capsys, "--checkpoint", bare, "--port", "0", "--prompt-label", "negative")
    assert (code, "no task was trained under negative" in said) == (64, True)


def test_a_port_that_is_taken_is_found_before_the_policy_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(capsys, "--checkpoint", "/nowhere", "--port", str(taken.getsockname()[1]))
    assert (code, "choose another --port" in said) == (64, True)


def test_a_port_that_somebody_took_while_the_policy_was_loaded(capsys, checkpoint, monkeypatch):
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))
        monkeypatch.setattr("robolift.policy.server.served.ServedPolicy.warm_up", lambda _: rival.listen())
        code, said = refused(capsys, "--checkpoint", checkpoint.uri, "--port", str(rival.getsockname()[1]))
    assert (code, "choose another --port" in said) == (64, True)


def test_what_is_no_finished_policy_is_refused(capsys, tmp_path):
    code, said = refused(capsys, "--checkpoint", str(tmp_path), "--port", "0")
    assert (code, str(tmp_path) in said) == (65, True)
    code, said = refused(capsys, "--checkpoint", publish_small(tmp_path, kind=Kind.DATASET).uri, "--port", "0")
    assert (code, "input checkpoint is a EpisodeDataset" in said) == (64, True)


def test_the_port_opens_only_when_the_policy_is_warm(checkpoint, monkeypatch):
    seen = []

    def warm_up(self):
        with socket.socket() as stranger, pytest.raises(ConnectionRefusedError):
            stranger.connect(("127.0.0.1", port))
        seen.append(port)

    monkeypatch.setattr("robolift.policy.server.served.ServedPolicy.warm_up", warm_up)
    from robolift.__main__ import _parser

    port = free_port()
    lines = cli.serve(_parser().parse_args(["serve", "--checkpoint", checkpoint.uri, "--port", str(port)]))
    assert next(lines) == f"policy server: ws://127.0.0.1:{port}"
    assert seen == [port]
    socket.create_connection(("127.0.0.1", port)).close()
    lines.close()

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import httpx
import pytest
from review_server import Page, Process, arguments, serving, write_tokens

from robolift import __main__ as command
from robolift import storage
from robolift.__main__ import main
from robolift.annotators.review import cli

HEAVY = ("fastapi", "starlette", "uvicorn", "pyarrow", "numpy", "av")


def refused(capsys, *words):
    code = main(list(words))
    return code, capsys.readouterr().err


@pytest.fixture
def words(dataset, tmp_path):
    return arguments(dataset.uri, str(tmp_path / "labels"))


def test_help_is_light_and_names_the_page():
    program = "import sys, robolift.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    program += f"print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "serve the page on which people label" in shown


def test_told_to_stop_it_ends_what_is_under_way_and_says_143(words):
    server = Process(*words)
    assert server.address.startswith("http://127.0.0.1:")
    assert "/?token=" in server.address
    assert httpx.get(server.address.replace("YOUR_NAME", "dora")).status_code == 303
    assert server.end(signal.SIGTERM) == 143


def test_a_host_that_others_reach_needs_identities(capsys, words):
    for host in ("0.0.0.0", "::", "10.1.2.3", "review.example.com"):
        code, said = refused(capsys, *words, "--host", host)
        assert (code, "nothing says who people are" in said) == (64, True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--identity-header", "X-Email"], "--identity-header needs --trusted-proxy"),
        (["--identity-header", "X-Email", "--trusted-proxy", "10.0.0.1/8"], "host bits set"),
        (["--identity-header", "X-Email", "--trusted-proxy", "0.0.0.0/0"], "/0 is everybody"),
        (["--identity-header", "X-Email", "--trusted-proxy", "all"], "expected networks such as 10.0.0.0/8"),
        (["--trusted-proxy", "10.0.0.0/8"], "--trusted-proxy needs --identity-header"),
        (["--identity-header", "X", "--trusted-proxy", "10.0.0.0/8", "--tokens", "x"], "give one"),
        (["--ask", "mood"], "--ask: Input should be 'segments', 'frames', 'outcome' or 'stages'"),
        (["--ask", ""], "nothing is asked"),
        (["--overlap", "2"], "--overlap: Input should be less than or equal to 1"),
        (["--ask", "stages"], "--num-task-stages: Value error, stages are asked, which takes at least 2"),
        (["--lease-s", "1"], "--lease-s: Input should be greater than or equal to 5"),
        (["--gold-rate", "2"], "--gold-rate: Input should be less than or equal to 1"),
        (["--annotators-per-item", "0"], "--annotators-per-item: Input should be greater than or equal to 1"),
        (["--num-task-stages", "0"], "--num-task-stages: Input should be greater than or equal to 1"),
    ],
)
def test_options_that_dont_fit_are_refused(capsys, words, options, problem):
    code, said = refused(capsys, *words, *options)
    assert code == 64
    assert problem in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no tokens"),
        ("- a", "holds no tokens"),
        ("a: [", "holds no tokens"),
        ("alice: short", "at least 16 characters"),
        ("alice: 12345678901234567890", "at least 16 characters"),
        ("../alice: abcdefghijklmnop", "can't be a name"),
        ("alice: abcdefghijklmnop\nbob: abcdefghijklmnop", "the same token"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_refused_without_quoting_it(capsys, words, tmp_path, text, problem):
    (tmp_path / "tokens.yaml").write_text(text)
    code, said = refused(capsys, *words, "--tokens", str(tmp_path / "tokens.yaml"))
    assert (code, problem in said) == (64, True)
    assert "abcdefghijklmnop" not in said
    assert "12345678901234567890" not in said


def test_labels_inside_something_finished_are_refused(capsys, dataset, tmp_path):
    for place in ("", "/labels", "/labels/deep/"):
        code, said = refused(capsys, *arguments(dataset.uri, dataset.uri + place))
        assert code == 64
        assert f"lies in the finished output {dataset.uri}; choose another folder" in said


def test_the_jobs_rules_can_be_chosen(words, tmp_path):
    with serving(*words, "--lease-s", "30", "--gold-rate", "0.5", "--annotators-per-item", "3"):
        pass
    job = storage.read_json(f"{tmp_path}/labels/job.json")
    assert (job["lease_s"], job["gold_rate"], job["annotators_per_item"]) == (30, 0.5, 3)


def test_who_listens_to_others_without_a_name_is_told(words, tmp_path):
    lines = cli.serve(command._parser().parse_args([*words, "--host", "0.0.0.0", "--tokens", write_tokens(tmp_path)]))
    assert next(lines).startswith("labelling page: http://0.0.0.0:")
    assert "no --served-name: only pages opened as 0.0.0.0 or localhost are answered" in next(lines)
    lines.close()


def test_a_port_that_is_taken_is_named(capsys, words):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(capsys, *words, "--port", str(taken.getsockname()[1]))
    assert (code, "choose another --port" in said) == (64, True)


def test_another_rule_than_the_folder_has_is_refused(capsys, words, tmp_path):
    with serving(*words):
        pass
    assert storage.read_json(f"{tmp_path}/labels/job.json")["ask"] == ["segments", "outcome"]
    code, said = refused(capsys, *words, "--seed", "5", "--no-blind")
    assert code == 64
    assert "blind is True there, False here; seed is 0 there, 5 here" in said
    (tmp_path / "gold.json").write_text("{}")
    with serving(*words, "--gold", str(tmp_path / "gold.json")):
        pass
    (tmp_path / "gold.json").write_text('{"episode:0": {"outcome": "success"}}')
    code, said = refused(capsys, *words, "--gold", str(tmp_path / "gold.json"))
    assert (code, "gold.json differs" in said) == (64, True)


def test_a_served_name_is_allowed_and_others_are_not(words):
    with serving(*words, "--served-name", "review.example.com", "labels.example.com") as link:
        base = link.partition("/?")[0]
        for host, status in (("review.example.com", 401), ("LABELS.example.com:443", 401), ("example.com", 403)):
            assert httpx.get(f"{base}/api/session", headers={"host": host}).status_code == status


def test_labels_on_s3_are_kept_for_the_next_server(dataset, s3, tmp_path):
    words = arguments(dataset.uri, f"{s3}/labels", "--tokens", write_tokens(tmp_path))
    for turn in range(2):
        with serving(*words) as base:
            page = Page(base).open()
            item = page.next()["item"]
            page.do(item, page.event("paint", turn, turn, turn + 1))
            page.close()
    with serving(*words) as base:
        page = Page(base).open()
        assert page.get(f"/api/episodes/{item[8:]}/mine").json()["state"]["tri"] == [[0, 1, 0], [1, 2, 1]]
        page.close()
    # Taken by `next`, and again to send: two epochs a turn.
    assert [name for name, _ in storage.list_files(f"{s3}/labels/leases")] == [
        f"episode-{item[8:]}/{epoch:08d}.json" for epoch in (1, 2, 3, 4)
    ]

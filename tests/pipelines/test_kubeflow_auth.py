"""Who we are to the server: a file, kubectl, Google, a pod's own token; secrets are sent and never printed."""

import base64
import json
import os
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest
from kfp_server import Fault

from components import _kubeflow, _kubeflow_auth

SECRET = "secret-of-dana"


def _authorizations(kfp):
    return [request.headers.get("authorization") for request in kfp.state.requests]


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that writes down how it was called and gives another token each time."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "kubectl"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "token-$(wc -l < {tmp_path}/calls | tr -d " ")"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: (tmp_path / "calls").read_text().splitlines()


def test_without_credentials_nothing_is_sent(kfp, submit):
    assert submit().code == 0
    assert set(_authorizations(kfp)) == {None}


def test_the_token_of_a_file_goes_with_every_request_and_into_no_output(kfp, submit, tmp_path):
    kfp.state.tokens = frozenset({SECRET})
    (tmp_path / "token").write_text(f"{SECRET}\n")
    done = submit("--token-file", str(tmp_path / "token"), "--release")
    assert done.code == 0
    assert set(_authorizations(kfp)) == {f"Bearer {SECRET}"}
    assert len(kfp.state.requests) == 8
    assert SECRET not in done.out + done.err


def test_a_token_file_is_read_again_when_it_was_renewed(kfp, command, submit, tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("first")
    kfp.state.tokens = frozenset({"first"})
    kfp.state.progress = ["RUNNING", "RUNNING", "SUCCEEDED"]

    def renew(seconds):
        path.write_text("second")
        kfp.state.tokens = frozenset({"second"})

    monkeypatch.setattr("components._wait.time.sleep", renew)
    assert submit("--token-file", str(path), "--wait").code == 0
    assert _authorizations(kfp)[-2:] == ["Bearer second", "Bearer second"]
    polls = [r for r in kfp.state.requests if "/v2beta1/runs/" in r.path]
    assert len(polls) == 3, "no poll was refused for a token that had been renewed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; expected a file with one token"),
        (b"", "expected one token and nothing else, found 0 words"),
        (b"secret-of-dana more", "expected one token and nothing else, found 2 words"),
        (b"\xff\xfe", "not text; expected a file with one token"),
    ],
)
def test_a_broken_token_file_is_named_and_not_shown(kfp, submit, tmp_path, content, message):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    done = submit("--token-file", str(path))
    assert done.code == 64
    assert f"token file {path}: {message}" in done.err
    assert SECRET not in done.err
    assert kfp.state.requests == []


def test_two_ways_at_once_are_refused(kfp, submit):
    done = submit("--token-file", "x", "--auth", "kubectl")
    assert done.code == 64
    assert "--token-file and --auth kubectl: use one of the two" in done.err


def test_kubectl_gives_the_token_of_the_profile_s_account(kfp, submit, kubectl):
    kfp.state.multi_user, kfp.state.tokens = True, frozenset({"token-1"})
    done = submit("--auth", "kubectl", "--namespace", "team")
    assert done.code == 0
    assert kubectl() == ["--namespace team create token default-editor --audience pipelines.kubeflow.org"]
    assert set(_authorizations(kfp)) == {"Bearer token-1"}
    assert "token-1" not in done.out + done.err


def test_kubeflow_s_gateway_takes_a_token_for_the_cluster(kfp, submit, kubectl):
    kfp.state.base = "/pipeline"
    assert submit("--auth", "kubectl", "--namespace", "team").code == 0
    assert submit("--auth", "kubectl", "--namespace", "team", "--audience", "me", "--token-account", "bot").code == 0
    assert kubectl() == [
        "--namespace team create token default-editor",
        "--namespace team create token bot --audience me",
    ]


def test_a_refused_token_is_asked_for_again_once(kfp, submit, kubectl):
    kfp.state.faults = [Fault("POST", "/runs$", 401, "token is expired")]
    assert submit("--auth", "kubectl", "--namespace", "team").code == 0
    assert len(kubectl()) == 2
    assert [r.headers["authorization"] for r in kfp.state.sent("POST", "/runs")] == ["Bearer token-1", "Bearer token-2"]
    kfp.state.faults = [Fault("POST", "/runs$", 401, "token is expired", times=9)]
    done = submit("--auth", "kubectl", "--namespace", "team")
    assert done.code == 64
    assert "answered 401: token is expired" in done.err
    assert len(kubectl()) == 4


def test_an_old_token_is_renewed_before_it_expires(kubectl):
    credentials = _kubeflow_auth.from_kubectl("team", "default-editor", "")
    assert [credentials.token(), credentials.token()] == ["token-1", "token-1"]
    credentials._fetched = time.monotonic() - 1801
    assert credentials.token() == "token-2"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error: You must be logged in' >&2; exit 1", "failed: error: You must be logged in"),
        ("exit 0", "failed: exit code 0, no token"),
    ],
)
def test_kubectl_s_own_error_is_shown(kfp, submit, kubectl, tmp_path, script, message):
    (tmp_path / "bin" / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
    done = submit("--auth", "kubectl", "--namespace", "team")
    assert done.code == 64
    assert "`kubectl --namespace team create token default-editor" in done.err
    assert message in done.err
    assert kfp.state.requests == []


def test_kubectl_missing_or_without_a_namespace(kfp, submit, tmp_path, monkeypatch):
    assert "--auth kubectl needs --namespace" in submit("--auth", "kubectl").err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no kubectl on PATH" in submit("--auth", "kubectl", "--namespace", "team").err


class _TokenServer(BaseHTTPRequestHandler):
    """Google's token endpoint: takes a signed assertion, gives an identity token."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        payload = form["assertion"][0].split(".")[1]
        self.server.claims.append(json.loads(base64.urlsafe_b64decode(payload + "==")))
        parts = [{"alg": "none"}, {"exp": int(time.time()) + 3600, "aud": "proxy-id"}]
        made = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
        self.server.token = f"{made}.c2ln"
        data = json.dumps({"id_token": self.server.token}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def google(tmp_path, monkeypatch):
    """A token endpoint, and a service account's key that names it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with HTTPServer(("127.0.0.1", 0), _TokenServer) as server:
        server.claims, server.token = [], ""
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        account = {
            "type": "service_account",
            "client_email": "ci@project.iam.gserviceaccount.com",
            "private_key": pem,
            "private_key_id": "1",
            "token_uri": f"http://127.0.0.1:{server.server_port}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield server
        server.shutdown()
        thread.join()


def test_google_gives_an_identity_token_for_the_proxy(kfp, submit, google):
    done = submit("--auth", "iap", "--audience", "proxy-id.apps.googleusercontent.com")
    assert done.code == 0, done.err
    assert [claim["target_audience"] for claim in google.claims] == ["proxy-id.apps.googleusercontent.com"]
    assert set(_authorizations(kfp)) == {f"Bearer {google.token}"}
    assert google.token not in done.out + done.err


def test_the_client_s_own_browser_login_is_never_started(kfp, submit, google, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "proxy-id")
    assert submit("--auth", "iap").code == 0
    assert submit().code == 0
    assert [claim["target_audience"] for claim in google.claims] == ["proxy-id"]


def test_google_without_an_audience_or_an_account(kfp, submit, monkeypatch, tmp_path):
    assert "--auth iap needs --audience" in submit("--auth", "iap").err
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    done = submit("--auth", "iap", "--audience", "proxy-id")
    assert done.code == 64
    assert "--auth iap: no identity token for proxy-id" in done.err
    assert "$GOOGLE_APPLICATION_CREDENTIALS" in done.err


def test_a_pod_finds_the_service_and_its_own_token(kfp, submit, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert _kubeflow.default_host() == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    monkeypatch.setattr(_kubeflow, "IN_CLUSTER_HOST", kfp.url)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "projected"))
    assert submit(host="").code == 0
    assert set(_authorizations(kfp)) == {None}
    (tmp_path / "projected").write_text("of-the-pod")
    kfp.state.requests.clear()
    assert submit(host="").code == 0
    assert set(_authorizations(kfp)) == {"Bearer of-the-pod"}


def test_the_token_of_a_pod_stays_in_the_cluster(kfp, submit, tmp_path, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "projected"))
    (tmp_path / "projected").write_text("of-the-pod")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert submit().code == 0
    assert set(_authorizations(kfp)) == {None}


def test_nothing_is_written_into_the_user_s_home(kfp, submit, tmp_path):
    kfp.state.multi_user = True
    assert submit("--namespace", "team").code == 0
    assert [path.name for path in tmp_path.iterdir()] == []

"""Every way in which a server can refuse us, and what a person is told about it."""

import datetime
import socket
import ssl

import pytest
from kfp_server import Fault

from components import _kubeflow
from robolift.errors import UsageError

RUN = "6f1c0c1e-0d5b-4a2e-9f5f-2d8f4bb1f001"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        (" https://kubeflow.example/pipeline/ ", "https://kubeflow.example/pipeline"),
        ("https://kubeflow.example/_/pipeline/?ns=team#/runs", "https://kubeflow.example/pipeline"),
        ("https://kubeflow.example/pipeline/#/runs/details/1", "https://kubeflow.example/pipeline"),
        ("http://localhost:8080/#/experiments", "http://localhost:8080"),
        ("http://localhost:8080/apis/v2beta1/healthz", "http://localhost:8080"),
        ("https://proxy.example/a/b/apis/v2beta1", "https://proxy.example/a/b"),
        ("kubeflow.example:8443", "https://kubeflow.example:8443"),
    ],
)
def test_an_address_is_read_as_it_was_meant(typed, meant):
    assert _kubeflow.address(typed) == meant


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "no --host and no $KFP_HOST"),
        ("ftp://kubeflow.example", "expected an address like http://localhost:8080"),
        ("https://", "expected an address like http://localhost:8080"),
        ("https://dana:hunter2@kubeflow.example", "carries a name or password"),
    ],
)
def test_an_address_that_is_none_is_refused(typed, message):
    with pytest.raises(UsageError) as caught:
        _kubeflow.address(typed)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_address_anywhere_is_a_usage_error(command):
    done = command("status", RUN, host="")
    assert done.code == 64
    assert done.err == "error: no --host and no $KFP_HOST: where is Kubeflow Pipelines?\n"


@pytest.mark.parametrize("name", ["KFP_HOST", "KF_PIPELINES_ENDPOINT"])
def test_the_address_may_come_from_the_environment(kfp, submit, monkeypatch, name):
    monkeypatch.setenv(name, kfp.url)
    assert submit(host="").code == 0
    assert len(kfp.state.runs) == 1


GOOGLE_STYLE = '{"error": "x", "code": 7, "message": "%s", "details": []}'


@pytest.mark.parametrize(
    ("status", "body", "code", "messages"),
    [
        (401, "Jwt is missing", 64, ["answered 401: Jwt is missing", "expected: a valid token", "--token-file"]),
        (
            403,
            GOOGLE_STYLE % "User 'dana' is not authorized",
            64,
            ["answered 403: User 'dana' is not authorized", "expected: the right to do this in namespace team"],
        ),
        (404, GOOGLE_STYLE % "Run not found", 64, ["answered 404: Run not found", "check the name or id, --host"]),
        (409, GOOGLE_STYLE % "Already exists", 64, ["answered 409: Already exists", "a name that is not in use"]),
        (400, GOOGLE_STYLE % "Invalid spec", 64, ["submitting run 'r': ", "answered 400: Invalid spec"]),
        (413, "<html><body>too large</body></html>", 64, ["answered 413: a web page"]),
        (500, '{"error_message": "Internal"}', 69, ["answered 500: Internal", "deployment ml-pipeline"]),
        (502, "bad gateway", 69, ["answered 502: bad gateway", "try again later"]),
        (503, "", 69, ["answered 503: no message"]),
        (504, b"\xff\xfe".decode("latin-1"), 69, ["answered 504"]),
    ],
)
def test_a_refusal_says_what_was_asked_what_was_answered_and_how_to_mend_it(kfp, submit, status, body, code, messages):
    kfp.state.multi_user = True
    kfp.state.faults = [Fault("POST", "/runs$", status, body, times=9, content_type="text/plain")]
    done = submit("--namespace", "team", "--run", "r")
    assert done.code == code
    for message in [f"error: submitting run 'r': {kfp.url}", *messages]:
        assert message in done.err
    assert "Traceback" not in done.err
    assert not kfp.state.runs


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Pipeline upload authentication failed. Authenticate the client and retry", "expected: a valid token"),
        ("pipeline upload denied: permission to create pipelines is required", "expected: the right to do this"),
        ("Failed to read a pipeline spec file", "answered 400: Failed to read a pipeline spec file"),
    ],
)
def test_the_upload_door_s_400_is_told_apart(kfp, command, message, expected):
    kfp.state.faults = [Fault("POST", "/upload_version$", 400, f'{{"error_message": "{message}"}}')]
    done = command("upload", "recap")
    assert done.code == 64
    assert message in done.err
    assert expected in done.err


def test_a_server_that_asks_for_a_token(kfp, submit):
    kfp.state.tokens = frozenset({"secret-of-dana"})
    done = submit()
    assert done.code == 64
    assert "connecting: " in done.err
    assert "answered 401: User identity is empty" in done.err


def test_a_login_page_is_not_taken_for_an_answer(kfp, submit, tmp_path):
    kfp.state.tokens, kfp.state.login = frozenset({"secret-of-dana"}), True
    without = submit()
    assert without.code == 64
    assert "answered with a web page, as for a login; there is no token" in without.err
    (tmp_path / "token").write_text("wrong-secret")
    refused = submit("--token-file", str(tmp_path / "token"))
    assert refused.code == 64
    assert "the token is not accepted here" in refused.err
    assert "wrong-secret" not in refused.out + refused.err


def test_a_login_page_in_the_middle_is_not_taken_for_an_answer(kfp, submit):
    kfp.state.faults = [Fault("POST", "/runs$", 200, "<!DOCTYPE html><html>Log in</html>", content_type="text/html")]
    done = submit("--run", "r")
    assert done.code == 64
    assert "submitting run 'r': " in done.err
    assert "answered with a web page" in done.err


@pytest.mark.parametrize(("base", "typed"), [("/pipeline", ""), ("/pipeline", "/jupyter"), ("", "/pipeline")])
def test_the_right_address_is_named_when_the_wrong_one_was_typed(kfp, submit, base, typed):
    kfp.state.base = base
    done = submit(host=f"{kfp.origin}{typed}")
    assert done.code == 64
    assert f"{kfp.origin}{typed} is not the pipelines API" in done.err
    assert f"mend: --host {kfp.url}, where it answers" in done.err
    assert not kfp.state.runs


def test_an_address_with_the_path_of_a_page_works(kfp, submit):
    kfp.state.base = "/pipeline"
    done = submit(host=f"{kfp.origin}/_/pipeline/?ns=team#/experiments")
    assert done.code == 0
    assert f"submitted:  {kfp.origin}/pipeline/#/runs/details/" in done.out


def test_a_server_of_the_first_api_is_named(kfp, submit):
    kfp.state.api, kfp.state.version = "/apis/v1beta1", "1.8.5"
    done = submit()
    assert done.code == 64
    assert "serves Kubeflow Pipelines 1.x (API v1beta1)" in done.err
    assert "expected: API v2beta1" in done.err


def test_a_server_that_is_something_else(kfp, submit):
    kfp.state.api = "/somewhere"
    done = submit()
    assert done.code == 64
    assert f"{kfp.url} is not the pipelines API" in done.err
    assert "answered 404: Not Found" in done.err


@pytest.mark.parametrize("answer", ["ok", "[]"])
def test_a_server_that_answers_something_else(kfp, submit, answer):
    kfp.state.faults = [Fault("GET", "/healthz$", 200, answer, times=9, content_type="text/plain")]
    done = submit()
    assert done.code == 64
    assert "is not the pipelines API\n  found: an answer that is not the API's" in done.err


def test_nobody_listens(submit):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = submit(host=host)
    assert done.code == 69
    assert f"connecting: {host} is not reachable" in done.err
    assert "Connection refused" in done.err
    assert "port-forward svc/ml-pipeline-ui" in done.err


def test_a_name_that_nobody_has(submit):
    done = submit(host="http://kubeflow.invalid")
    assert done.code == 69
    assert "http://kubeflow.invalid is not reachable" in done.err


def test_a_server_that_never_answers_is_given_up(submit, monkeypatch):
    monkeypatch.setattr(_kubeflow, "TIMEOUTS_S", (0.2, 0.2))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        done = submit(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert done.code == 69
    assert "timed out" in done.err


@pytest.fixture
def secured(kfp, tmp_path):
    """The server with a certificate of its own making, whose file is returned."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(__import__("ipaddress").ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "ca.crt", tmp_path / "key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    kfp.socket = context.wrap_socket(kfp.socket, server_side=True)
    return certificate


def test_a_certificate_that_is_not_trusted_says_how_to_trust_it(kfp, submit, secured, monkeypatch):
    assert kfp.url.startswith("https://")
    done = submit()
    assert done.code == 64
    assert "shows a certificate that is not trusted here" in done.err
    assert "--ca-file FILE" in done.err
    assert submit("--ca-file", str(secured)).code == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(secured))
    assert submit().code == 0
    assert len(kfp.state.runs) == 2


def test_tls_to_a_server_without_it_says_so(kfp, submit):
    done = submit(host=kfp.url.replace("http://", "https://"))
    assert done.code == 64
    assert "does not speak TLS" in done.err
    assert "http:// instead of https://" in done.err


def test_a_missing_authority_file_is_named(kfp, submit):
    done = submit("--ca-file", "/nowhere/ca.crt")
    assert done.code == 64
    assert done.err == "error: --ca-file /nowhere/ca.crt: no such file\n"
    assert kfp.state.requests == []


def test_a_token_that_the_server_echoes_is_not_printed(kfp, submit, tmp_path):
    (tmp_path / "token").write_text("secret-of-dana\n")
    body = '{"message": "bad header Bearer secret-of-dana"}'
    kfp.state.faults = [Fault("POST", "/runs$", 403, body)]
    done = submit("--token-file", str(tmp_path / "token"))
    assert done.code == 64
    assert "bad header Bearer ***" in done.err
    assert "secret-of-dana" not in done.out + done.err

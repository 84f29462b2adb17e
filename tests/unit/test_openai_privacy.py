"""What leaves this process on the way to a model, and to whom: keys, headers, proxies, certificates."""

import ipaddress
import logging
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from openai_server import MODEL, OpenAIServer

from robolift.annotators.messages import Question, TransportError
from robolift.annotators.transports.openai import OpenAITransport
from robolift.errors import UsageError

KEY = "sk-never-to-be-seen"
WORDS = Question(parts=("How far?",), max_tokens=20)


@pytest.fixture
def server():
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def transport(server, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_VLM_API_KEY", f"{KEY}\n")  # as files of secrets end
    made = OpenAITransport(model=MODEL, endpoint=server.url, workers=2, sleep=lambda _: None)
    yield made
    made.close()


def test_nothing_tells_of_this_machine_or_account(server, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    other = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    other.ask([WORDS])
    other.close()
    names = set(server.requests[0].headers)
    assert names == {
        *("host", "accept", "accept-encoding", "connection", "user-agent"),
        *("authorization", "content-type", "content-length"),
    }


def test_the_key_is_in_no_log_and_no_error(server, transport, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    server.play("500", "429:1", "401")  # each repeats the key in its message
    with pytest.raises(UsageError) as error:
        transport.ask([WORDS])
    told = capsys.readouterr()
    assert "asked again later" in told.out + told.err
    for text in (str(error.value), repr(error.value.__cause__), told.out, told.err, caplog.text, repr(transport)):
        assert KEY not in text


def test_without_a_key_a_placeholder_goes_out(server, monkeypatch):
    monkeypatch.delenv("ROBOLIFT_VLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # meant for others
    plain = OpenAITransport(model=MODEL, endpoint=server.url, workers=1)
    plain.ask([WORDS])
    plain.close()
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_an_address_with_a_password_is_shown_without(server):
    address = server.url.replace("127.0.0.1", f"me:{KEY}@127.0.0.1")
    asked = OpenAITransport(model=MODEL, endpoint=address, workers=1)
    server.play("404")
    with pytest.raises(UsageError) as error:
        asked.ask([WORDS])
    asked.close()
    assert KEY not in str(error.value)


def test_a_proxy_of_the_environment_sees_nothing(server, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    direct = OpenAITransport(model=MODEL, endpoint=server.url, workers=1, max_tries=1)
    assert direct.ask([WORDS])[0].text == "[]"
    direct.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate for 127.0.0.1 that nobody knows, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with OpenAIServer("good", "slow:300", tls=context) as server:
        yield server


def test_an_unknown_certificate_is_refused_at_once(secure):
    careful = OpenAITransport(model=MODEL, endpoint=secure.url, workers=1)
    with pytest.raises(UsageError, match=r"certificate that is not trusted here: .* SSL_CERT_FILE"):
        careful.ask([WORDS])
    careful.close()


def test_an_authority_of_ones_own_is_trusted(secure, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trusting = OpenAITransport(model=MODEL, endpoint=secure.url, workers=1)
    assert trusting.ask([WORDS])[0].text == "[]"
    threading.Timer(0.3, trusting.close).start()  # an answer that is waited for over TLS is let go of too
    with pytest.raises(TransportError, match="is not asked any more"):
        trusting.ask([WORDS])

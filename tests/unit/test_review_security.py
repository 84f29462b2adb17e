"""What the labelling server refuses, over real HTTP."""

from __future__ import annotations

import itertools
import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
from review_server import TOKENS, Page, arguments, serving, write_tokens

from robolift import logging

PASSWD = "../../../../../../../../etc/passwd"


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return str(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def address(dataset, labels, tmp_path_factory):
    tokens = write_tokens(tmp_path_factory.mktemp("tokens"))
    with serving(*arguments(dataset.uri, labels, "--tokens", tokens, "--overlap", "1")) as base:
        yield base


@pytest.fixture
def page(address):
    page = Page(address).open()
    yield page
    page.close()


def raw(address: str, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are and return status and the whole answer."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
        connection.sendall(request)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return int(answer.split(b" ", 2)[1]), answer


def test_nothing_is_said_to_strangers(address):
    for path in ("/api/session", "/api/items", "/api/episodes/0", "/api/progress", "/api/episodes/0/mine"):
        assert httpx.get(address + path).status_code == 401
    for headers in (
        {"authorization": "Bearer alice-token-012345678"},
        {"authorization": "Bearer x"},
        {"cookie": "a=b"},
    ):
        assert httpx.get(address + "/api/session", headers=headers).status_code == 401
    assert httpx.get(address + "/healthz").json() == {"ok": True}


def test_every_answer_carries_the_security_headers(address, page):
    camera = page.facts["dataset"]["cameras"][0]
    for path in ("/", "/healthz", "/api/session", "/static/none", f"/api/episodes/0/frames/{camera}", "/nowhere"):
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert page.get("/api/session").headers["cache-control"] == "no-store"
    assert httpx.get(address + "/api/session").headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_nothing_documents_or_lists_the_interface(page):
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert page.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/episodes/..%2f..%2fjob.json",
        "/api/episodes/-1",
        "/api/episodes/8",
        "/api/episodes/1e3",
        "/api/episodes/99999999999999999999",
        "/api/episodes/0x1/mine",
        "/api/episodes/..%2f0/mine",
        "/api/episodes/8/mine",
        "/api/episodes/8/others",
        "/api/episodes/8/lanes",
        "/api/episodes/%2e%2e/frames/observation.images.topview",
        "/api/episodes/8/frames/observation.images.topview",
        f"/api/episodes/0/frames/{PASSWD.replace('/', '%2f')}",
        "/api/episodes/0/frames/..%2f..%2fmeta%2finfo.json",
        "/api/episodes/0/frames/observation.images.topview%2f..%2f..%2f..",
        "/api/episodes/0/frames/observation.images.topview%00",
        "/api/episodes/0/frames/action",
        "/api/episodes/0/frames/observation.images.topview?start=-1",
        "/api/episodes/0/frames/observation.images.topview?start=6&stop=7",
        "/api/episodes/0/frames/observation.images.topview?start=3&stop=3",
        "/api/episodes/0/frames/observation.images.topview?start=0&stop=../../etc",
        f"/api/pairs/{PASSWD.replace('/', '%2f')}",
        "/api/pairs/..%2f..%2fjob.json/mine",
        f"/api/items?mode={PASSWD}",
        f"/static/{PASSWD}",
        f"/static/{PASSWD.replace('/', '%2f')}",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/..%5c..%5capp.py",
    ],
)
def test_no_path_of_a_request_reaches_the_store(address, path):
    bearer = f"Authorization: Bearer {TOKENS['alice']}\r\n"
    host = urlsplit(address).netloc
    status, answer = raw(address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n".encode())
    assert status in (404, 422), answer
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.parametrize(
    "item", [PASSWD, "episode:../0", "episode:8", "episode:-1", "episode:00", "pair:../x", "", "x" * 999]
)
def test_items_that_are_not_there_get_no_lease_and_no_events(page, labels, item):
    assert page.post("/api/lease", item=item, action="take").status_code == 404
    assert page.send(item, 1, page.event("complete")).status_code == 404


def test_frames_end_where_the_episode_ends(page):
    camera = page.facts["dataset"]["cameras"][0]
    answer = page.get(f"/api/episodes/0/frames/{camera}?start=4&stop=200")
    assert int.from_bytes(answer.content[4:8], "little") == 2  # of six
    assert page.get(f"/api/episodes/2/frames/{camera}?start=0&stop=9999").status_code == 200


def test_a_post_needs_the_pages_own_token(address, page):
    body = {"mode": "episode"}
    right = page.facts["csrf"]
    for token in ("", "wrong", right[:-1] + ("1" if right.endswith("0") else "0"), page.facts["session"] + "."):
        page.client.headers["x-robolift-csrf"] = token
        answer = page.post("/api/next", **body)
        assert answer.status_code == 403
        assert answer.json()["detail"].startswith("csrf:")
    del page.client.headers["x-robolift-csrf"]
    assert page.post("/api/next", **body).status_code == 403
    bob = Page(address, "bob").open()
    page.client.headers["x-robolift-csrf"] = bob.facts["csrf"]  # of another person
    assert page.post("/api/next", **body).status_code == 403
    bob.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_a_post_of_another_sites_page_is_refused(page, headers):
    del page.client.headers["origin"]
    answer = page.client.post("/api/next", json={"mode": "episode"}, headers=headers)
    assert answer.status_code == 403
    good = {"sec-fetch-site": "same-origin"}
    assert page.client.post("/api/next", json={"mode": "pair"}, headers=good).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "169.254.169.254", ""])
def test_a_name_that_was_bent_to_this_address_is_refused(page, host):
    for path in ("/", "/api/session", "/static/app.js"):
        assert page.get(path, headers={"host": host}).status_code == 403
    assert page.get("/healthz", headers={"host": host}).status_code == 200


def test_localhost_is_a_served_name(page, address):
    assert page.get("/api/session", headers={"host": f"localhost:{urlsplit(address).port}"}).status_code == 200


def test_a_large_body_is_refused_however_it_is_framed(page, address):
    big = json.dumps({"item": "episode:0", "epoch": 1, "events": [], "x": "y" * 300_000}).encode()

    def chunks():
        for start in range(0, len(big), 10_000):
            yield big[start : start + 10_000]

    for content in (big, chunks(), big * 12):
        answer = page.client.post("/api/events", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
    # Endless chunks are not read for ever; a length that lies is not waited for.
    with pytest.raises((httpx.TransportError, httpx.HTTPStatusError)):
        page.client.post("/api/events", content=itertools.repeat(big)).raise_for_status()
    head = f"POST /api/events HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nOrigin: {address}\r\n"
    head += f"Authorization: Bearer {TOKENS['alice']}\r\nX-Robolift-CSRF: {page.facts['csrf']}\r\n"
    assert raw(address, f"{head}Content-Length: 999999999\r\n\r\n{{".encode())[0] == 413
    assert raw(address, f"{head}Content-Length: -1\r\nConnection: close\r\n\r\n".encode())[0] in (400, 413)


def test_a_body_that_is_no_json_or_deeply_nested_is_refused(page):
    def post(content):
        return page.client.post(
            "/api/events", content=content, headers={"content-type": "application/json"}
        ).status_code

    assert post(b"{") == 422
    assert post(b"\xff\xfe") in (400, 422)
    assert post(b"[" * 100_000) in (400, 422)
    assert post(b'{"item": "episode:0", "epoch": 1, "events": "x"}') == 422
    assert post(b'{"item": "episode:0", "epoch": "1", "events": [{}]}') == 422
    assert post(json.dumps({"item": "episode:0", "epoch": 1, "events": [{}] * 501}).encode()) == 422


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_do_nothing(page, method):
    answer = page.client.request(method, "/api/session")
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_a_forged_name_in_a_header_is_ignored_where_tokens_count(page):
    headers = {"x-auth-request-email": "bob", "x-forwarded-user": "bob", "x-forwarded-for": "10.0.0.1"}
    assert page.get("/api/session", headers=headers).json()["annotator"] == "alice"


def test_models_labels_and_others_work_are_withheld_until_one_is_done(address, page):
    bob = Page(address, "bob").open()
    bob.complete("episode:3", 15, tri=-1)
    assert page.get("/api/episodes/3/others").status_code == 403
    assert page.get("/api/episodes/3/mine").json()["events"] == []
    assert page.get("/api/episodes/3/lanes").json()["blind"] is True
    bob.post("/api/lease", item="episode:3", action="release", epoch=1)
    page.complete("episode:3", 15)
    assert page.get("/api/episodes/3/lanes").json()["blind"] is False
    shown = page.get("/api/episodes/3/others").json()["annotators"]
    assert [(found["name"], found["state"]["tri"]) for found in shown] == [("bob", [[0, 15, -1]])]
    bob.close()


def test_the_identity_header_counts_only_from_the_proxy(dataset, tmp_path):
    words = arguments(dataset.uri, str(tmp_path / "labels"), "--identity-header", "X-Auth-Email", "--trusted-proxy")
    trusted = {"x-auth-email": "carol@example.com"}
    with serving(*words, "127.0.0.1/32") as address:
        assert httpx.get(f"{address}/api/session", headers=trusted).json()["annotator"] == "carol@example.com"
        assert httpx.get(f"{address}/api/session").status_code == 401
        twice = [("x-auth-email", "carol@example.com"), ("x-auth-email", "bob@example.com")]
        assert httpx.get(f"{address}/api/session", headers=twice).status_code == 401
        for name in ("../bob", "a b", "bob/../carol", ".", "..", "bob%00", "x" * 200, "<script>"):
            assert httpx.get(f"{address}/api/session", headers={"x-auth-email": name}).status_code == 403
    with serving(*words, "10.0.0.0/8") as address:
        forged = {**trusted, "x-forwarded-for": "10.1.2.3", "forwarded": "for=10.1.2.3", "x-real-ip": "10.1.2.3"}
        for headers in (trusted, forged, {}):
            answer = httpx.get(f"{address}/api/session", headers=headers)
            assert answer.status_code == 403
            assert "trusted proxy" in answer.json()["detail"]


def test_the_printed_link_signs_in_with_a_cookie_that_only_this_site_gets(dataset, tmp_path):
    with serving(*arguments(dataset.uri, str(tmp_path / "labels"))) as link:
        link = link.replace("YOUR_NAME", "dora")
        base = link.partition("/?")[0]
        refused = httpx.get(f"{base}/?token=wrong")
        assert refused.status_code == 401
        assert refused.headers["content-type"].startswith("text/html")  # the page, which says what to do
        assert httpx.get(link.replace("dora", "../x")).status_code == 403
        answer = httpx.get(link)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        with httpx.Client(base_url=base) as browser:
            browser.get(link)
            assert browser.get("/api/session").json()["annotator"] == "dora"
        assert httpx.get(f"{base}/api/session").status_code == 401


def test_the_cookie_is_signed_ends_and_is_no_token(dataset, tmp_path, monkeypatch):
    words = arguments(dataset.uri, str(tmp_path / "labels"), "--tokens", write_tokens(tmp_path))
    with serving(*words, "--served-name", "labels.example.com") as base:
        answer = httpx.get(f"{base}/?token={TOKENS['alice']}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert TOKENS["alice"] not in cookie
        assert "secure" not in cookie.lower()  # 127.0.0.1: no TLS
        elsewhere = httpx.get(f"{base}/?token={TOKENS['alice']}", headers={"host": "labels.example.com"})
        assert "; Secure" in elsewhere.headers["set-cookie"]
        name, value = cookie.partition(";")[0].split("=")
        who, until, signature = value.split(".")
        assert who == "alice"

        def status(held):
            return httpx.get(f"{base}/api/session", headers={"cookie": f"{name}={held}"}).status_code

        assert status(value) == 200
        later = int(until) + 1
        forged = [f"bob.{until}.{signature}", f"alice.{later}.{signature}", f"alice.{until}.", "alice", "..", signature]
        assert [status(held) for held in forged] == [401] * 6
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 15 * 24 * 3600)
        assert status(value) == 401
    monkeypatch.undo()
    with serving(*words) as base:  # another start, the same tokens
        assert status(value) == 200
    (tmp_path / "tokens.yaml").write_text("alice: another-token-of-alice\n")
    with serving(*words) as base:
        assert status(value) == 401


def test_a_page_goes_on_at_another_server_of_the_folder(dataset, tmp_path):
    words = arguments(dataset.uri, str(tmp_path / "labels"), "--tokens", write_tokens(tmp_path))
    with serving(*words) as base:
        page = Page(base).open()
        epoch = page.take("episode:0")
        page.do("episode:0", page.event("paint", 1, 0, 6), epoch=epoch)
        page.close()
    with serving(*words) as base:
        again = Page(base)
        again.facts, again.seq = page.facts, page.seq
        again.client.headers["x-robolift-csrf"] = page.facts["csrf"]
        again.do("episode:0", again.event("outcome", "success", 5), epoch=epoch)
        assert len(again.get("/api/episodes/0/mine").json()["events"]) == 2
        again.close()


def test_refusals_are_logged_without_what_was_shown(address, page, capfd):
    logging.configure()  # as the command line does
    httpx.get(f"{address}/?token=secret-of-mine-0123456789")
    httpx.get(f"{address}/api/session", headers={"authorization": "Bearer secret-of-mine-0123456789"})
    page.get("/api/items", headers={"host": "evil.example"})
    said = capfd.readouterr().err
    assert said.count("refused") == 3
    assert "the token is nobody's" in said
    assert "names no host that this server is served under" in said
    assert "/api/items" in said
    assert "secret-of-mine" not in said

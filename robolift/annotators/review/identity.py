"""Who is at the other end: a name from a trusted proxy, a token of their own, or the link printed at start."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import yaml
from starlette.requests import HTTPConnection

from robolift import exclusive, storage
from robolift.annotators.review.events import ANNOTATOR, SESSION, new_ulid
from robolift.errors import UsageError

COOKIE = "robolift"
MIN_TOKEN = 16
DEFAULT_NAME = "me"
SIGNED_IN_S = 14 * 24 * 3600
CSRF_FILE = "csrf.key"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RefusedError(Exception):
    """A request that can't be answered; ``status`` is 401 without credentials and 403 with wrong ones."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Identity(Protocol):
    """A way to know who asks."""

    def who(self, connection: HTTPConnection) -> str:
        """Return the name of who sent a request.

        Raises:
            RefusedError: If that is not known.
        """

    def sign_in(self, token: str, name: str | None) -> tuple[str, str] | None:
        """Return the cookie (name, value) for a ``?token=`` link, None if links are not used here.

        Raises:
            RefusedError: If the token or the name is wrong.
        """


def _checked_name(name: str) -> str:
    if not ANNOTATOR.fullmatch(name):
        raise RefusedError(403, "the name has other signs than letters, digits and @ . _ + : -")
    return name


class ProxyIdentity:
    """A header that counts only from the addresses of the proxy that checks who people are."""

    def __init__(self, header: str, trusted: Sequence[str]) -> None:
        """Trust ``header`` from the networks ``trusted`` (CIDR).

        Raises:
            UsageError: If there is no such network, or none.
        """
        try:
            self._networks: list[Network] = [ipaddress.ip_network(network) for network in trusted]
        except ValueError as error:
            raise UsageError(f"--trusted-proxy: {error}; expected networks such as 10.0.0.0/8") from None
        if any(network.prefixlen == 0 for network in self._networks):
            raise UsageError("--trusted-proxy: /0 is everybody; name the addresses of the proxy")
        if not self._networks:
            raise UsageError("--identity-header needs --trusted-proxy: the networks that may set it")
        self._header = header

    def who(self, connection: HTTPConnection) -> str:
        """Return the name in the header of a trusted proxy's request."""
        try:
            address = ipaddress.ip_address(connection.client.host if connection.client else "")
        except ValueError:
            raise RefusedError(403, "the request comes from no address of the trusted proxy") from None
        mapped = getattr(address, "ipv4_mapped", None)  # a socket for both families reports IPv4 that way
        if not any((mapped or address) in network for network in self._networks):
            raise RefusedError(403, "the request comes from no address of the trusted proxy")
        names = connection.headers.getlist(self._header)
        if len(names) != 1 or not names[0]:
            raise RefusedError(401, f"the proxy sent {len(names)} headers {self._header}, expected one name")
        return _checked_name(names[0])

    def sign_in(self, token: str, name: str | None) -> tuple[str, str] | None:
        """Return None: the proxy signs people in."""
        return None


class _CookieIdentity:
    """Signs people in for some days: the cookie says who, until when, and is signed with the token they came with."""

    def __init__(self, labels: str) -> None:
        # Cookies don't know ports: two servers on one machine must not overwrite each other's.
        self.cookie = f"{COOKIE}_{hashlib.sha256(storage.normalize(labels).encode()).hexdigest()[:8]}"

    def _token_of(self, name: str) -> str | None:
        """Return the token that signs a person's cookie, None of a stranger."""
        raise NotImplementedError

    def _name_of(self, token: str) -> str:
        """Return whose token it is."""
        raise NotImplementedError

    def who(self, connection: HTTPConnection) -> str:
        """Return whose token or cookie it is."""
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._name_of(token.strip())
        held = connection.cookies.get(self.cookie)
        if not held:
            raise RefusedError(401, "sign in with the link you were given")
        signed, _, signature = held.rpartition(".")
        name, _, until = signed.rpartition(".")
        token_of_name = self._token_of(name)
        if token_of_name is None or not _same(self._sign(signed, token_of_name), signature):
            raise RefusedError(401, "you were signed in with another link; use the one you were given last")
        if int(until) < time.time():
            raise RefusedError(401, "sign in again with the link you were given")
        return _checked_name(name)

    def _cookie_of(self, name: str, token: str) -> tuple[str, str]:
        signed = f"{name}.{int(time.time()) + SIGNED_IN_S}"
        return self.cookie, f"{signed}.{self._sign(signed, token)}"

    def _sign(self, signed: str, token: str) -> str:
        return hmac.new(token.encode(), f"{self.cookie}\0{signed}".encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))


class TokenIdentity(_CookieIdentity):
    """A token of their own for everybody."""

    def __init__(self, tokens: Mapping[str, str], labels: str) -> None:
        """Know people by ``tokens``, name: token."""
        super().__init__(labels)
        self._tokens = dict(tokens)

    @classmethod
    def read(cls, uri: str, labels: str) -> TokenIdentity:
        """Read the file of tokens: YAML, one ``name: token`` a line.

        Raises:
            UsageError: If it is none, a name can't be used, or a token is short or stands twice.
        """
        try:
            document = yaml.safe_load(storage.read_bytes(uri))
        except yaml.YAMLError:
            document = None  # its message would quote the file
        if not isinstance(document, dict) or not document:
            raise UsageError(f"{uri} holds no tokens; expected YAML with a line `name: token` for everybody")
        for name, token in document.items():
            if not isinstance(name, str) or not ANNOTATOR.fullmatch(name):
                raise UsageError(f"{uri}: {name!r} can't be a name; expected letters, digits and @ . _ + : -")
            if not isinstance(token, str) or len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
                raise UsageError(f"{uri}: the token of {name} must be text of at least {MIN_TOKEN} characters")
        if len(set(document.values())) < len(document):
            raise UsageError(f"{uri}: two people have the same token")
        return cls(document, labels)

    def sign_in(self, token: str, name: str | None) -> tuple[str, str] | None:
        """Return a cookie for whose token it is."""
        return self._cookie_of(self._name_of(token), token)

    def _token_of(self, name: str) -> str | None:
        return self._tokens.get(name)

    def _name_of(self, token: str) -> str:
        owner = None
        for name, known in self._tokens.items():  # all of them, so that the time tells nothing
            if _same(known, token):
                owner = name
        if owner is None:
            raise RefusedError(401, "the token is nobody's")
        return owner


class LinkIdentity(_CookieIdentity):
    """One token made at start and printed as a link; whoever has it says their own name."""

    def __init__(self, labels: str) -> None:
        """Make the token."""
        super().__init__(labels)
        self.token = secrets.token_hex(24)

    def sign_in(self, token: str, name: str | None) -> tuple[str, str] | None:
        """Return a cookie for the name, if the token is right."""
        self._name_of(token)
        return self._cookie_of(_checked_name(name or DEFAULT_NAME), token)

    def _token_of(self, name: str) -> str | None:
        return self.token

    def _name_of(self, token: str) -> str:
        if not _same(self.token, token):
            raise RefusedError(401, "the link is of an earlier start; use the one printed last")
        return DEFAULT_NAME


class Sessions:
    """Names page loads, and proves that a request comes from a page that was served to the same person.

    The key lies in the labels folder, so that a page may go on at another server of the folder, or after a restart. Who
    can read it is no further: a request needs the person's cookie too, and no other site's page can send the header.
    """

    def __init__(self, labels: str) -> None:
        """Take the key of the folder ``labels``, or make it."""
        uri = storage.join(labels, CSRF_FILE)
        exclusive.create(uri, secrets.token_hex(32).encode())
        self._key = storage.read_bytes(uri)

    def open(self, annotator: str) -> tuple[str, str]:
        """Return a new session of a person and the token that its requests carry."""
        session = new_ulid()
        return session, f"{session}.{self._sign(annotator, session)}"

    def session_of(self, annotator: str, token: str) -> str:
        """Return the session of a token.

        Raises:
            RefusedError: If it was not given to this person.
        """
        session, _, signature = token.partition(".")
        right = _same(self._sign(annotator, session), signature)
        if not right or not SESSION.fullmatch(session):
            raise RefusedError(403, "csrf: the page is of another folder or person; open the session again")
        return session

    def _sign(self, annotator: str, session: str) -> str:
        return hmac.new(self._key, f"{annotator}\0{session}".encode(), hashlib.sha256).hexdigest()

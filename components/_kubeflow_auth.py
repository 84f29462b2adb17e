"""Who we are to Kubeflow Pipelines: a token from a file, from kubectl, from Google, or the one a pod is given.

A token is a secret that expires while a run is waited for. So it is fetched when a request needs it, kept in memory
only, renewed when it gets old or is refused, and cut out of every message.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from kfp.client.token_credentials_base import TokenCredentialsBase

from robolift.errors import UsageError

# Where a pod of Kubeflow finds its token for the pipelines API, and that token's audience.
POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
POD_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
API_AUDIENCE = "pipelines.kubeflow.org"
# kubectl and Google give tokens for an hour.
MAX_AGE_S = 1800.0
KUBECTL_TIMEOUT_S = 60


class Credentials(TokenCredentialsBase):
    """A bearer token, fetched again when it is older than ``max_age_s``."""

    def __init__(self, fetch: Callable[[], str], max_age_s: float = MAX_AGE_S) -> None:
        """Take the function that fetches a token, and the seconds for which one is used."""
        self._fetch = fetch
        self._max_age_s = max_age_s
        self._token = ""
        self._fetched = 0.0

    def token(self) -> str:
        """Return a token that is fresh enough.

        Raises:
            UsageError: If there is none to be had.
        """
        if not self._token or time.monotonic() - self._fetched > self._max_age_s:
            self._token = self._fetch()
            self._fetched = time.monotonic()
        return self._token

    def forget(self) -> None:
        """Fetch anew at the next request."""
        self._fetched = -self._max_age_s

    def redact(self, text: str) -> str:
        """Return ``text`` without the token."""
        return text.replace(self._token, "***") if self._token else text

    def refresh_api_key_hook(self, config: Any) -> None:
        """Put the token where the client looks for it, before each request."""
        config.api_key["authorization"] = self.token()
        config.api_key_prefix["authorization"] = "Bearer"


def from_file(path: str) -> Credentials:
    """Return the token in a file, read before every request: whoever writes it may renew it meanwhile."""

    def read() -> str:
        try:
            lines = Path(path).read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise UsageError(f"token file {path}: {reason}; expected a file with one token") from None
        if len(lines) != 1:
            raise UsageError(f"token file {path}: expected one token and nothing else, found {len(lines)} words")
        return lines[0]

    return Credentials(read, max_age_s=0.0)


def from_kubectl(namespace: str, account: str, audience: str) -> Credentials:
    """Return a ServiceAccount's token, asked of the cluster that kubectl points at.

    Args:
        namespace: The account's namespace: the user's profile.
        account: ServiceAccount, ``default-editor`` in a profile.
        audience: Whom the token is for; empty is the cluster itself, which Kubeflow's gateway checks.

    Raises:
        UsageError: If no namespace is given.
    """
    if not namespace:
        raise UsageError("--auth kubectl needs --namespace: whose ServiceAccount? A profile's namespace is its name")
    command = ["kubectl", "--namespace", namespace, "create", "token", account]
    command += ["--audience", audience] if audience else []

    def ask() -> str:
        said = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=KUBECTL_TIMEOUT_S, check=False)
        except FileNotFoundError:
            raise UsageError("--auth kubectl: there is no kubectl on PATH; install it, or use --token-file") from None
        except subprocess.TimeoutExpired:
            raise UsageError(f"`{said}` did not answer in {KUBECTL_TIMEOUT_S} s: is the cluster reachable?") from None
        if done.returncode or not done.stdout.strip():
            why = done.stderr.strip() or f"exit code {done.returncode}, no token"
            raise UsageError(f"`{said}` failed: {why}")
        return done.stdout.strip()

    return Credentials(ask)


def from_google(audience: str) -> Credentials:
    """Return an identity token for Google's Identity-Aware Proxy.

    Args:
        audience: OAuth client id of the proxy.

    Raises:
        UsageError: If no audience is given.
    """
    if not audience:
        raise UsageError("--auth iap needs --audience: the OAuth client id of the Identity-Aware Proxy")

    def ask() -> str:
        from google.auth import exceptions
        from google.auth.transport.requests import Request
        from google.oauth2 import id_token

        try:
            return str(id_token.fetch_id_token(Request(), audience))
        except exceptions.GoogleAuthError as error:
            raise UsageError(
                f"--auth iap: no identity token for {audience}: {error}\n"
                "  expected: a service account's key in $GOOGLE_APPLICATION_CREDENTIALS, or a machine of Google's"
            ) from None

    return Credentials(ask)


def kubectl_audience(host: str) -> str:
    """Return the audience that the door at ``host`` asks of a cluster's token.

    Kubeflow's gateway serves the pipelines below a path and takes a token for the cluster; without a path it is the
    pipelines' own service, which takes a token for itself.
    """
    return "" if urlsplit(host).path.strip("/") else API_AUDIENCE


def choose(args: Any, host: str, *, in_cluster: bool) -> Credentials | None:
    """Return the credentials that the command line asks for; None is none, as behind ``kubectl port-forward``.

    Raises:
        UsageError: If two ways are asked for, or one is incomplete.
    """
    if args.token_file and args.auth:
        raise UsageError(f"--token-file and --auth {args.auth}: use one of the two")
    if args.token_file:
        return from_file(args.token_file)
    if args.auth == "kubectl":
        audience = kubectl_audience(host) if args.audience is None else args.audience
        return from_kubectl(args.namespace, args.token_account, audience)
    if args.auth == "iap":
        return from_google(args.audience or os.environ.get("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", ""))
    path = os.environ.get(POD_TOKEN_VARIABLE) or POD_TOKEN
    if in_cluster and Path(path).exists():
        return from_file(path)
    return None

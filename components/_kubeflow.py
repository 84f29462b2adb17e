"""One connection to Kubeflow Pipelines: the address, the client, and every request made through it.

Every call goes through :meth:`Kubeflow.ask`, which retries what is safe to repeat, renews a token that was refused,
and turns what the client raises into an error that a person can act on.
"""

import contextlib
import io
import json
import os
import re
import time
import warnings
from typing import Any, Callable, Dict, Iterator, Tuple
from urllib.parse import urlsplit, urlunsplit

import kfp_server_api
import urllib3
from kfp.client import Client

from components import _kubeflow_auth, _kubeflow_errors
from components._kubeflow_auth import Credentials
from components._kubeflow_errors import HTML
from robolift.errors import RoboliftError, UsageError

IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
API = "/apis/v2beta1"
# Seconds to connect, and to wait for an answer: a black hole must not hold a terminal for ever.
TIMEOUTS_S = (10, 120)
RETRY_WAITS_S = (1.0, 2.0, 4.0)
EQUALS = 1
# With these set the client's constructor opens a browser, whatever credentials it is given; --auth iap needs none.
CLIENT_LOGIN_VARIABLES = ("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "KF_PIPELINES_APP_OAUTH2_CLIENT_ID")


@contextlib.contextmanager
def _without(names: Tuple[str, ...]) -> Iterator[None]:
    """Hide variables of the environment."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _Client(Client):
    """The KFP client, less two habits of its constructor: 25 s of retries, and writing into the user's home."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Ask for the server's health once."""
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=TIMEOUTS_S)

    def set_user_namespace(self, namespace: str) -> None:
        """Remember the namespace for this process only."""
        self._context_setting["namespace"] = namespace


def default_host() -> str:
    """Return the address that the environment names, or the service's own inside a cluster, or nothing."""
    named = os.environ.get("KFP_HOST") or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    return named or (IN_CLUSTER_HOST if os.environ.get("KUBERNETES_SERVICE_HOST") else "")


def address(text: str) -> str:
    """Return the API's address from what a person has: often the browser's address bar.

    A fragment, a query and the path of a page are taken off; ``/_/pipeline``, where Kubeflow's dashboard frames the
    pipelines, becomes ``/pipeline``, where they are.

    Raises:
        UsageError: If it is empty, of another scheme, or carries a password.
    """
    if not text.strip():
        raise UsageError("no --host and no $KFP_HOST: where is Kubeflow Pipelines?")
    text = text.strip() if "://" in text else f"https://{text.strip()}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--host {text!r}: expected an address like http://localhost:8080 or https://HOST/pipeline")
    if parts.username or parts.password:
        raise UsageError("--host carries a name or password; use --token-file or --auth instead")
    path = re.sub(r"/apis(/.*)?$", "", parts.path)
    path = re.sub(r"^/_/pipeline(/.*)?$", "/pipeline", path).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def equals(name: str) -> str:
    """Return the API's filter for one display name."""
    return json.dumps({"predicates": [{"operation": EQUALS, "key": "display_name", "stringValue": name}]})


class Kubeflow:
    """A connection whose server is known to answer and to speak our version of the API."""

    def __init__(self, host: str, credentials: Credentials | None, namespace: str, ca_file: str, ui: str = "") -> None:
        """Connect and check. Use :func:`connect`.

        Raises:
            UsageError: If the address, the token or the namespace is wrong.
            UnavailableError: If the server doesn't answer.
        """
        self.host = host
        self.ui = (ui or os.environ.get("KF_PIPELINES_UI_ENDPOINT") or host).rstrip("/")
        self.credentials = credentials
        self.namespace = namespace
        self._ready = False
        with warnings.catch_warnings(), _without(CLIENT_LOGIN_VARIABLES):
            warnings.simplefilter("ignore")  # about the client's own age, and a host without a scheme
            # A namespace keeps the constructor off the network, so that its first request is ours, below.
            self.client: Any = self._guard(
                "connecting",
                lambda: _Client(host=host, namespace="unset", credentials=credentials, ssl_ca_cert=ca_file or None),
            )
        self._wire = self.client._run_api.api_client
        self._bound_time()
        self._check_server()

    def _bound_time(self) -> None:
        """Give each request of the client a time limit; its own methods take none."""
        request = self._wire.rest_client.request

        def bounded(*args: Any, _request_timeout: Any = None, **options: Any) -> Any:
            return request(*args, _request_timeout=_request_timeout or TIMEOUTS_S, **options)

        self._wire.rest_client.request = bounded

    def _check_server(self) -> None:
        try:
            health = self.ask("connecting", self.client.get_kfp_healthz)
        except _kubeflow_errors.NotFoundError as error:
            raise self._wrong_address(str(error)) from None
        facts = self._json(self._wire.last_response.data)
        if not isinstance(facts, dict):
            raise self._wrong_address("an answer that is not the API's")
        self.version = str(facts.get("tag_name") or "unknown")
        self.multi_user = bool(health.multi_user)
        if self.multi_user and not self.namespace:
            raise UsageError(
                f"{self.host} serves several users and no namespace is named\n  mend: --namespace NAME, your profile's"
            )
        # A server for one user refuses a namespace in its requests; ours only chose whose token to use.
        self.api_namespace = self.namespace if self.multi_user else None
        self.client.set_user_namespace(self.api_namespace or "")
        self._ready = True

    @staticmethod
    def _json(text: Any) -> Any:
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return None

    def _probe(self, url: str) -> Any:
        """Return the JSON at ``url``, or None."""
        headers: Dict[str, str] = {"Accept": "application/json"}
        if self.credentials:
            headers["authorization"] = f"Bearer {self.credentials.token()}"
        with contextlib.suppress(kfp_server_api.ApiException, urllib3.exceptions.HTTPError, AttributeError):
            return self._json(self._wire.rest_client.GET(url, headers=headers).data)
        return None

    def _wrong_address(self, found: str) -> UsageError:
        """Return the error for a server that is there and isn't the API, with the right address where it shows."""
        root = self.host.removesuffix("/pipeline")
        parts = urlsplit(self.host)
        origin = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        for candidate in dict.fromkeys((f"{root}/pipeline", root, f"{origin}/pipeline", origin)):
            if candidate != self.host and isinstance(self._probe(f"{candidate}{API}/healthz"), dict):
                return UsageError(f"{self.host} is not the pipelines API\n  mend: --host {candidate}, where it answers")
        if isinstance(self._probe(f"{self.host}/apis/v1beta1/healthz"), dict):
            return UsageError(
                f"{self.host} serves Kubeflow Pipelines 1.x (API v1beta1)\n"
                "  expected: API v2beta1, Kubeflow Pipelines 2.x\n  mend: upgrade the server, or name another --host"
            )
        return UsageError(f"{self.host} is not the pipelines API\n  found: {found.splitlines()[0]}")

    def ask(self, doing: str, function: Callable[..., Any], *args: Any, repeat: bool = True, **options: Any) -> Any:
        """Call a method of the client.

        Args:
            doing: What it is for, for the message: "reading the run".
            function: Method of the client or of one of its APIs.
            args: Its arguments.
            repeat: Whether it is safe to send twice. A request that starts something isn't.
            options: Its keyword arguments.

        Raises:
            UsageError: If the request is refused for a reason the user can mend.
            UnavailableError: If the server can't be reached or is broken.
        """
        waits = list(RETRY_WAITS_S) if repeat else []
        renewed = False
        while True:
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # the client prints links of its own
                    result = function(*args, **options)
                self._refuse_page(doing)
                return result
            except RoboliftError:
                raise
            except Exception as error:
                if getattr(error, "status", None) == 401 and self.credentials and not renewed:
                    self.credentials.forget()
                    renewed = True
                elif waits and _kubeflow_errors.is_transient(error):
                    time.sleep(waits.pop(0))
                else:
                    raise self._explained(error, doing) from None

    def _guard(self, doing: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except RoboliftError:
            raise
        except Exception as error:
            raise self._explained(error, doing) from None

    def _explained(self, error: Exception, doing: str) -> RoboliftError:
        known = _kubeflow_errors.explain(error, self.host, doing, self.namespace)
        known.args = (self.redact(str(known)),)
        return known

    def _refuse_page(self, doing: str) -> None:
        """Refuse a web page where an answer should be; the client would take it for an answer without content."""
        response = self._wire.last_response
        data = response.data.decode("utf-8", "replace") if isinstance(response.data, bytes) else str(response.data)
        if not HTML.match(data):
            return
        if not self._ready:
            probed = self._wrong_address("a web page")
            if "mend" in str(probed):
                raise probed
        how = "the token is not accepted here" if self.credentials else "there is no token"
        raise UsageError(
            f"{doing}: {self.host} answered with a web page, as for a login; {how}\n"
            "  mend: --token-file FILE, --auth kubectl or --auth iap; or --host with the address of the API"
        )

    def redact(self, text: str) -> str:
        """Return ``text`` without the token."""
        return self.credentials.redact(text) if self.credentials else text

    def read_text(self, path: str, query: Tuple[Tuple[str, str], ...] = ()) -> str | None:
        """Return the text at a path of the server that the client has no method for, or None if it has none."""
        headers = {"Accept": "text/plain"}
        try:
            if self.credentials:
                headers["authorization"] = f"Bearer {self.credentials.token()}"
            response = self._wire.rest_client.GET(f"{self.host}{path}", headers=headers, query_params=query)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, AttributeError, RoboliftError):
            return None
        text = response.data.decode("utf-8", "replace")
        return None if HTML.match(text) else text

    def run_url(self, run_id: str) -> str:
        """Return the page of a run."""
        return f"{self.ui}/#/runs/details/{run_id}"


def connect(args: Any) -> Kubeflow:
    """Return the connection that the command line asks for.

    Args:
        args: Parsed arguments with ``host``, ``ui_host``, ``namespace``, ``ca_file`` and those of the credentials.

    Raises:
        UsageError: If the address, the token or the namespace is wrong.
        UnavailableError: If the server doesn't answer.
    """
    host = address(args.host or default_host())
    # A pod's own token goes to services of its cluster alone, whatever --host says.
    inside = host == IN_CLUSTER_HOST or bool(re.search(r"\.svc(\.|$)", urlsplit(host).hostname or ""))
    in_cluster = inside and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    credentials = _kubeflow_auth.choose(args, host, in_cluster=in_cluster)
    if credentials:
        credentials.token()  # a missing file is an error before the network is touched
    ca_file = args.ca_file or os.environ.get("SSL_CERT_FILE", "")
    if ca_file and not os.path.exists(ca_file):
        raise UsageError(f"--ca-file {ca_file}: no such file")
    return Kubeflow(host, credentials, args.namespace, ca_file, args.ui_host)

"""What went wrong between us and Kubeflow Pipelines, in words that say how to mend it."""

import json
import re
from typing import Any

import kfp_server_api
import urllib3

from robolift.errors import RoboliftError, UsageError

EXIT_UNAVAILABLE = 69
HTML = re.compile(r"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
MAX_MESSAGE = 500


class UnavailableError(RoboliftError):
    """The server can't be reached or is out of order: the same call may work later."""

    exit_code = EXIT_UNAVAILABLE


class ConflictError(UsageError):
    """Something of that name is there already."""


class NotFoundError(UsageError):
    """There is no such run, pipeline or schedule."""


def said(body: Any) -> str:
    """Return what a server's answer says: the message in its JSON, or its text, on one line and cut to length."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = next((str(document[k]) for k in ("message", "error_message", "error") if document.get(k)), text)
    return "a web page" if HTML.match(text) else " ".join(text.split())[:MAX_MESSAGE]


def is_transient(error: BaseException) -> bool:
    """Tell whether asking again may help: the network, or a server that is restarting."""
    if isinstance(error, kfp_server_api.ApiException):
        return error.status in RETRIED_STATUS
    return isinstance(error, urllib3.exceptions.HTTPError) and "SSL" not in _reasons(error)


def _reasons(error: BaseException) -> str:
    """Return an error and everything beneath it as text: urllib3 wraps the cause in several layers."""
    seen, texts = error, []
    for _ in range(8):
        texts.append(f"{type(seen).__name__}: {seen}")
        beneath = getattr(seen, "reason", None)
        beneath = beneath if isinstance(beneath, BaseException) else (seen.__cause__ or seen.__context__)
        if beneath is None:
            break
        seen = beneath
    return "\n".join(texts)


def _unreachable(error: BaseException, host: str, doing: str) -> RoboliftError:
    why = _reasons(error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return UsageError(
            f"{doing}: {host} shows a certificate that is not trusted here\n"
            f"  found: {why.splitlines()[-1][:MAX_MESSAGE]}\n"
            "  mend: --ca-file FILE with the certificate authority, or the name that the certificate is for"
        )
    if "SSL" in why:
        return UsageError(
            f"{doing}: {host} does not speak TLS\n  found: {why.splitlines()[-1][:MAX_MESSAGE]}\n"
            "  mend: http:// instead of https://, if that is what it serves"
        )
    return UnavailableError(
        f"{doing}: {host} is not reachable\n  found: {why.splitlines()[-1][:MAX_MESSAGE]}\n"
        "  mend: check --host and the network; on a cluster without a public address: "
        "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
    )


def _refused(status: int, body: Any, host: str, doing: str, namespace: str) -> RoboliftError:
    message = said(body)
    answer = f"{doing}: {host} answered {status}: {message or 'no message'}"
    # The server's upload door answers 400 where every other door answers 401 or 403.
    if status == 401 or (status == 400 and "authentication failed" in message):
        return UsageError(
            f"{answer}\n  expected: a valid token; this one is missing, expired or for another audience\n"
            "  mend: --token-file FILE, --auth kubectl or --auth iap"
        )
    if status == 403 or (status == 400 and "denied" in message):
        where = f"namespace {namespace}" if namespace else "the server's own namespace"
        return UsageError(
            f"{answer}\n  expected: the right to do this in {where}\n"
            "  mend: another --namespace, or ask its owner to add you as a contributor"
        )
    if status == 404:
        return NotFoundError(f"{answer}\n  mend: check the name or id, --host and --namespace")
    if status == 409:
        return ConflictError(f"{answer}\n  expected: a name that is not in use")
    if status in RETRIED_STATUS or status >= 500:
        return UnavailableError(f"{answer}\n  mend: try again later, and see the log of deployment ml-pipeline")
    return UsageError(answer)


def explain(error: Exception, host: str, doing: str, namespace: str = "") -> RoboliftError:
    """Return the error a user sees for what the client raised.

    Args:
        error: What was raised.
        host: Address of the API.
        doing: What was attempted, as in "submitting the run".
        namespace: Namespace that was asked for; empty in single-user mode.
    """
    if isinstance(error, kfp_server_api.ApiException) and error.status:
        return _refused(error.status, error.body, host, doing, namespace)
    # The client trips over its own report of a failed TLS handshake; the cause lies beneath.
    if isinstance(error, (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, AttributeError)):
        return _unreachable(error, host, doing)
    return UnavailableError(f"{doing}: {host} gave an answer this client can't read: {error}")

"""Check what a cluster must offer before a pipeline is submitted: ``python -m robolift.launch.preflight``.

``helm test`` runs it in the cpu image under the launcher's account, so what it may do is what a step may do. It
answers every question before it ends, and says for each failure how to mend it.
"""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from robolift import logging, storage
from robolift.errors import RoboliftError
from robolift.launch import cluster
from robolift.launch.backends import BACKENDS
from robolift.launch.cluster import connect, reason
from robolift.launch.spec import PROCESS

EXIT_NOT_READY = 1
TIMEOUT_S = 15.0
# What must be served, and who serves it.
KINDS = {**{name: astuple(backend.RESOURCE) for name, backend in BACKENDS.items()}, PROCESS: None}
WORKFLOWS = astuple(cluster.WORKFLOWS)
KUEUE = ("kueue.x-k8s.io", "v1beta2", "localqueues")
PROVIDERS = {
    "none": (),
    "gke": (("cloud.google.com", "v1", "computeclasses"),),
    "karpenter": (("karpenter.sh", "v1", "nodepools"), ("karpenter.k8s.aws", "v1", "ec2nodeclasses")),
}
CONFIG_CONNECTOR = ("container.cnrm.cloud.google.com", "v1beta1", "containernodepools")
MENDS = {
    "kubeflow.org": "install the training operator v1.9.2, or choose another trainer.backend",
    "trainer.kubeflow.org": "install Kubeflow Trainer 2.3, or choose another trainer.backend",
    "batch": "this is part of Kubernetes: is the API server healthy?",
    "argoproj.io": "install Kubeflow Pipelines 2.17",
    "kueue.x-k8s.io": "install Kueue 0.17 or later (it serves v1beta2), or set kueue.enabled to false",
    "cloud.google.com": "provider gke needs GKE 1.33.3 or later",
    "karpenter.sh": "install Karpenter 1.x, or choose another provider",
    "karpenter.k8s.aws": "install Karpenter 1.x for AWS, or choose another provider",
    "container.cnrm.cloud.google.com": "install Config Connector, or set gke.configConnector.enabled to false",
}
JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One answer: what was asked, whether it holds, and what to do where it doesn't."""

    ok: bool
    what: str
    mend: str = ""

    def __str__(self) -> str:
        """Return one line, and a second one with the cure of a failure."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.what}" + ("" if self.ok else f"\n     mend: {self.mend}")


def served(api: Any, resource: tuple[str, str, str]) -> Finding:
    """Tell whether the API server serves ``resource`` (group, version, plural)."""
    from kubernetes.client import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    group, version, plural = resource
    name = f"{plural}.{group}/{version}"
    try:
        answer = api.call_api(
            f"/apis/{group}/{version}",
            "GET",
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
            response_type="object",
            _return_http_data_only=True,
            _request_timeout=TIMEOUT_S,
        )
    except (ApiException, HTTPError) as error:
        return Finding(ok=False, what=f"{name} is not served ({reason(error)})", mend=MENDS[group])
    if plural not in {entry["name"] for entry in answer["resources"]}:
        return Finding(ok=False, what=f"{name} is not served", mend=MENDS[group])
    return Finding(ok=True, what=f"{name} is served")


def allowed(api: Any, namespace: str, group: str, resource: str, verb: str) -> bool:
    """Tell whether this account may ``verb`` the ``resource`` (``pods/log``: a subresource) in ``namespace``."""
    from kubernetes import client  # noqa: PLC0415

    name, _, subresource = resource.partition("/")
    attributes = client.V1ResourceAttributes(
        namespace=namespace, group=group, resource=name, subresource=subresource or None, verb=verb
    )
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review, _request_timeout=TIMEOUT_S)
    return bool(answer.status.allowed)


def may_launch(api: Any, namespace: str, backends: Sequence[str]) -> Finding:
    """Tell whether this account may do all that launching a job takes."""
    from kubernetes.client import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    needs = [(resource[0], resource[2], verb) for b in backends if (resource := KINDS[b]) for verb in JOB_VERBS]
    if "job" in backends:
        needs.append(("", "services", "create"))  # where the pods of a Job find each other
    needs += [
        ("", "pods", "list"),
        ("", "pods/log", "get"),
        ("", "events", "list"),
        ("argoproj.io", "workflows", "get"),
    ]
    try:
        missing = [f"{verb} {res}" for group, res, verb in needs if not allowed(api, namespace, group, res, verb)]
    except (ApiException, HTTPError) as error:
        return Finding(ok=False, what=f"can't ask what this account may do ({reason(error)})", mend="allow the review")
    if missing:
        return Finding(
            ok=False,
            what=f"this account may not {', '.join(missing)} in {namespace}",
            mend="add it to launcher.subjects, and upgrade the release",
        )
    return Finding(ok=True, what=f"this account may launch and watch jobs in {namespace}")


def kfp_answers(url: str) -> Finding:
    """Tell whether the API of Kubeflow Pipelines at ``url`` answers; a demand to log in is an answer."""
    address = f"{url.rstrip('/')}/apis/v2beta1/healthz"
    mend = "set kfp.url; is there a network policy between the namespaces?"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            return Finding(ok=True, what=f"{address} answers {answer.status}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Finding(ok=True, what=f"{address} answers {error.code}: it wants a login, as with several users")
        return Finding(ok=False, what=f"{address} answers {error.code}", mend=mend)
    except (OSError, ValueError) as error:
        return Finding(ok=False, what=f"{address}: {getattr(error, 'reason', error)}", mend=mend)


def storage_writable(root: str) -> Finding:
    """Tell whether a small object can be written and deleted below ``root``."""
    try:
        storage.probe(storage.join(root, "preflight"))
    except RoboliftError as error:
        return Finding(ok=False, what=str(error), mend="bind the account to a cloud identity that may write there")
    except Exception as error:
        # Each store's client has its own exceptions, and the answer here is the same for all of them.
        return Finding(
            ok=False,
            what=f"{root} can't be written: {type(error).__name__}: {error}",
            mend="check storage.root and storage.env, and the account's cloud identity",
        )
    return Finding(ok=True, what=f"{root} can be written")


def check(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield the answers in the order in which a pipeline would meet them."""
    api = connect()
    wanted = [WORKFLOWS, *(resource for b in dict.fromkeys(args.backend) if (resource := KINDS[b]))]
    wanted += [*PROVIDERS[args.provider], *([KUEUE] if args.kueue else [])]
    wanted += [CONFIG_CONNECTOR] if args.config_connector else []
    for resource in wanted:
        yield served(api, resource)
    yield may_launch(api, args.namespace, list(dict.fromkeys(args.backend)))
    yield kfp_answers(args.kfp_url)
    if args.storage:
        yield storage_writable(args.storage)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m robolift.launch.preflight", description="Check what a cluster must offer."
    )
    parser.add_argument("--namespace", required=True, help="where runs will be")
    parser.add_argument("--kfp-url", required=True, help="API of Kubeflow Pipelines")
    parser.add_argument("--backend", action="append", default=[], choices=sorted(KINDS), help="may be given twice")
    parser.add_argument("--provider", default="none", choices=sorted(PROVIDERS), help="who makes nodes")
    parser.add_argument("--kueue", action="store_true", help="queues are used")
    parser.add_argument("--config-connector", action="store_true", help="node pools are made by Config Connector")
    parser.add_argument("--storage", default="", metavar="URI", help="write and delete a probe below this address")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print every finding and return 0, or 1 when the cluster is not ready."""
    logging.configure()
    args = _parser().parse_args(argv)
    failed = 0
    try:
        for finding in check(args):
            failed += not finding.ok
            sys.stdout.write(f"{finding}\n")
            sys.stdout.flush()
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write("ready\n" if not failed else f"not ready: {failed} of the above\n")
    return EXIT_NOT_READY if failed else 0


if __name__ == "__main__":
    sys.exit(main())

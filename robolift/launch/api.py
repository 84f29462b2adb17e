"""The way to the Kubernetes API: inside a pod by its account, elsewhere by the kubeconfig."""

from __future__ import annotations

import os
from typing import Any

from robolift.errors import RoboliftError

TIMEOUT_S = 15.0
MANAGED_BY = "app.kubernetes.io/managed-by"
LAUNCHER = "robolift-launcher"
WORKFLOW_LABEL = "robolift.io/workflow"


def connect() -> Any:
    """Return a ``kubernetes.client.ApiClient`` of the cluster this process is in, or of ``$KUBECONFIG``.

    Raises:
        RoboliftError: If neither names a cluster.
    """
    from kubernetes import client, config  # noqa: PLC0415

    configuration = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            # The library looks at the variable when it is imported; a caller may have set it since.
            config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG") or None, client_configuration=configuration
            )
    except (config.ConfigException, OSError) as error:
        raise RoboliftError(
            f"no cluster to talk to: {error}; run in a pod, or point KUBECONFIG at a kubeconfig file"
        ) from error
    return client.ApiClient(configuration)


def reason(error: Exception) -> str:
    """Return what the API or the network said, in one line.

    Args:
        error: An ``ApiException``, or what urllib3 raises when nobody answers.
    """
    status = getattr(error, "status", None)
    if status is None:
        return f"no answer: {error}"
    return f"{status} {getattr(error, 'reason', '') or ''}".strip()

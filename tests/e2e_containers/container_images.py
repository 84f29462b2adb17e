"""What the container tests share: names of the images, and the variables that lead to the S3 server."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL_BASE = "localhost/robolift-base:3.11-slim"
NAMES = ("cpu", "torch", "jax")


def image_name(name: str) -> str:
    """Return what the tests' daemon calls an image."""
    return f"robolift-{name}:under-test"


def s3_environment(port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """Return the variables that send every s3:// address to the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

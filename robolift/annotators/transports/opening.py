"""One door to every transport."""

from __future__ import annotations

from robolift.annotators.messages import Transport
from robolift.errors import UsageError


def open_transport(
    *,
    transport: str,
    model: str,
    endpoint: str = "",
    workers: int = 1,
    requests_per_minute: float = 0.0,
    timeout_s: float = 300.0,
    max_tries: int = 6,
    dtype: str = "bfloat16",
    device: str = "cpu",
    batch_size: int = 1,
    model_sha256: str = "",
) -> Transport:
    """Return the way to a model.

    Args:
        transport: ``openai`` (a server) or ``hf`` (a model in this process).
        model: The server's name of the model, or the address of a folder that holds it.
        endpoint: Base address of the server; ``openai`` only, as are the next four.
        workers: Questions under way at the same time.
        requests_per_minute: Most requests a minute; 0: no limit.
        timeout_s: Longest wait for one answer.
        max_tries: Tries of one question.
        dtype: ``bfloat16`` or ``float32``; ``hf`` only, as are the next three.
        device: ``cpu`` or ``cuda``.
        batch_size: Questions computed at once.
        model_sha256: What ``models.model_digest`` must say of the folder; empty: anything.

    Raises:
        UsageError: If there is no such transport, or it lacks its model or endpoint.
        DataError: If the folder holds no model, or another one.
    """
    if not model:
        raise UsageError("no model is named; set model")
    if transport == "openai":
        if not endpoint:
            raise UsageError(
                "no endpoint to ask; set endpoint to the server's base address, such as http://vllm:8000/v1"
            )
        from robolift.annotators.transports.openai import OpenAITransport  # noqa: PLC0415  (heavy)

        return OpenAITransport(
            model=model,
            endpoint=endpoint,
            workers=workers,
            requests_per_minute=requests_per_minute,
            timeout_s=timeout_s,
            max_tries=max_tries,
        )
    if transport == "hf":
        from robolift.annotators.transports.hf import HFTransport  # noqa: PLC0415  (torch takes seconds)

        return HFTransport(model=model, dtype=dtype, device=device, batch_size=batch_size, expect_sha256=model_sha256)
    raise UsageError(f"transport {transport!r}; there are: openai, hf")

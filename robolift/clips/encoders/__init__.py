"""Image encoders: the picture itself, CLIP, EfficientNet-Lite0. Only the files that load a model know of torch."""

from __future__ import annotations

from robolift import storage
from robolift.clips.encoders.encoder import Encoder
from robolift.clips.encoders.pixels import Pixels
from robolift.data.models import materialize, model_digest


def open_encoder(encoder_uri: str, *, expect_sha256: str = "", device: str = "cpu") -> Encoder:
    """Load an encoder; what lies at the address tells which one it is.

    Args:
        encoder_uri: A folder with ``config.json`` as transformers saves CLIP, or a file with the weights of
            EfficientNet-Lite0 (``.pth`` or ``.safetensors``); empty: `pixels`.
        expect_sha256: Digest that :func:`robolift.data.models.model_digest` must give; empty: any.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: If nothing is there, or there is no such device.
        DataError: If it holds something else.
    """
    if not encoder_uri:
        return Pixels()
    path = materialize(encoder_uri, expect_sha256)
    digest = expect_sha256 or model_digest(str(path))
    where = storage.normalize(encoder_uri)
    if path.is_dir():
        from robolift.clips.encoders.clip import Clip  # noqa: PLC0415  (torch takes seconds to import)

        return Clip(path, digest=digest, device=device, where=where)
    from robolift.clips.encoders.efficientnet import EfficientNetLite0  # noqa: PLC0415

    return EfficientNetLite0(path, digest=digest, device=device, where=where)

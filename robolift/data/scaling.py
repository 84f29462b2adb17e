"""Images at the size a model sees them, for models that act: scaled as the frames of its training were."""

from __future__ import annotations

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation


def scale_images(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return (B, H, W, 3) uint8 images at ``size`` (height, width), by area averaging like decoded training frames.

    None leaves them as they are.
    """
    if size is None or images.shape[1:3] == size:
        return images
    frames = [VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in images]
    scaled = [f.reformat(width=size[1], height=size[0], interpolation=Interpolation.AREA) for f in frames]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in scaled])

"""Fast small images of a MuJoCo scene.

Images a second of Meta-World at 96x96 with software OpenGL on one core: 9 with MuJoCo's renderer as it comes, 155
without shadows, reflections and multisampling, 205 through the calls used here, and 250 when geoms outside the camera's
view aren't sent to OpenGL, which changes no pixel: three quarters of the time goes into the vertices of the arm.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from robolift.sim import graphics

MAX_GEOMS = 2000
HIDDEN_GROUP = 5  # MuJoCo draws groups 0 to 2 unless told otherwise
UPSIDE_DOWN = frozenset({"corner", "corner2", "corner3", "corner4"})
"""Cameras that Meta-World mounts with their top towards the floor; their pictures are turned by 180 degrees."""


class Renderer:
    """Draws scenes that share one set of meshes; several worlds of a task may use one renderer.

    Args:
        model: Compiled MuJoCo model; its off-screen size and sampling are set here.
        cameras: Names of cameras in the model.
        image_size: Height and width in pixels.
        library: ``egl`` or ``osmesa``, as given to :func:`robolift.sim.graphics.select`.
        cull: Leave out geoms that the camera can't see.

    Raises:
        UsageError: If OpenGL doesn't start here.
    """

    def __init__(
        self, model: Any, cameras: tuple[str, ...], image_size: int, library: str, *, cull: bool = True
    ) -> None:
        self.cameras = cameras
        self.image_size = image_size
        self._cull = cull
        # The context takes these from the model when it is made, not later.
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        model.vis.quality.offsamples = 0
        with graphics.explained(library):
            self._context_gl = mujoco.GLContext(image_size, image_size)
            self._context_gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._view = mujoco.MjrRect(0, 0, image_size, image_size)
        self._options = mujoco.MjvOption()
        self._perturbation = mujoco.MjvPerturb()
        self._cameras = {name: _fixed_camera(model, name) for name in cameras}
        self._pixels = np.empty((image_size, image_size, 3), np.uint8)
        self._to_video, self._to_rgb = VideoReformatter(), VideoReformatter()

    def render(self, model: Any, data: Any) -> dict[str, np.ndarray]:
        """Return one (image_size, image_size, 3) uint8 RGB image per camera, by the camera's name.

        Colour has half the resolution, as in any recorded video (yuv420p). A policy learns from video: would it act on
        sharper colours, small objects would not look as in training (mean difference 4 of 255 without this and at
        usual compression, 1.3 as recorded).
        """
        return {name: self._as_video(self._draw(model, data, name)) for name in self._cameras}

    def close(self) -> None:
        """Free the OpenGL context; must happen before the process ends."""
        self._context.free()
        self._context_gl.free()

    def _as_video(self, image: np.ndarray) -> np.ndarray:
        frame = self._to_video.reformat(VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p", threads=1)
        rgb: np.ndarray = self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return rgb

    def _draw(self, model: Any, data: Any, name: str) -> np.ndarray:
        camera = self._cameras[name]
        groups = model.geom_group.copy()
        if self._cull:
            model.geom_group[_outside(model, data, camera.fixedcamid)] = HIDDEN_GROUP
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, self._perturbation, camera, everything, self._scene)
        model.geom_group[:] = groups
        mujoco.mjr_render(self._view, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._view, self._context)
        # OpenGL's first row is the lowest; turned by 180 degrees it is the highest, and columns change sides.
        return np.ascontiguousarray(self._pixels[:, ::-1] if name in UPSIDE_DOWN else self._pixels[::-1])


def _fixed_camera(model: Any, name: str) -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = model.camera(name).id
    return camera


def _outside(model: Any, data: Any, camera: int) -> np.ndarray:
    """Return (ngeom,) bool: the geom's bounding sphere lies wholly outside the camera's square view.

    A camera looks along its own -z. A sphere of radius r around p is out of view when p lies more than r beyond one of
    the four side planes of the pyramid or behind the camera; planes (radius 0) are always kept.
    """
    relative = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # (ngeom, 3)
    depth = -relative[:, 2]
    half = np.deg2rad(model.cam_fovy[camera]) / 2
    beyond = np.abs(relative[:, :2]).max(axis=1) * np.cos(half) - depth * np.sin(half)
    radius = model.geom_rbound
    out: np.ndarray = (radius > 0) & ((beyond > radius) | (depth < -radius))
    return out

"""One Meta-World task as a 40 Hz robot: reset from a seed, act, look.

Meta-World simulates at 400 Hz and takes commands at 80 Hz. Every action is held for two commands, which gives 40 Hz
recordings; the first of the two skips Meta-World's reward and observation code, 90 % of its time.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from robolift.sim.plans import WorldSpec
from robolift.sim.render import Renderer
from robolift.sim.tasks import CAMERA_KEY, ENVIRONMENT_STATE, STATE, check_task

# Meta-World's observation: 18 numbers now, the same 18 one command earlier, the goal.
NOW, EARLIER, GOAL = 0, 18, slice(36, 39)
HAND_AND_GRIPPER, OBJECT_POSE = slice(0, 4), slice(4, 11)


class World:
    """A simulated robot at its task.

    Args:
        spec: Task and cameras.
        renderer: A renderer of another world of the same spec, to share its meshes; made here when None.

    Attributes:
        observation: (39,) float64, Meta-World's observation; what the scripted experts act on.
        success: Whether the task is solved in the present state.
        shaped_reward: Meta-World's dense reward of the present state, 0 to 10.
        initial: The observation after the reset.
    """

    observation: np.ndarray
    initial: np.ndarray

    def __init__(self, spec: WorldSpec, renderer: Renderer | None = None) -> None:
        self.spec = spec
        self._env: Any = ALL_V3_ENVIRONMENTS[check_task(spec.task)]()
        # What set_task would do, with a fresh object and goal position at each reset and the goal visible to us.
        self._env._set_task_called = True
        self._env._partially_observable = False
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        del self._env.sawyer_observation_space  # cached with the goal hidden
        if renderer is None and spec.cameras:
            renderer = Renderer(self._env.model, spec.cameras, spec.image_size, spec.gl)
        self.renderer = renderer
        self._images: dict[str, np.ndarray] | None = None
        self.success = False
        self.shaped_reward = 0.0

    def reset(self, seed: int) -> None:
        """Put the robot at its start and object and goal where ``seed`` says."""
        self._env.seed(seed)
        self.observation, _ = self._env.reset()
        # Sites follow the new goal only after a forward pass; the first image would show the old one.
        mujoco.mj_forward(self._env.model, self._env.data)
        self.initial = self.observation.copy()
        self._after(success=False, shaped_reward=0.0)

    def step(self, action: np.ndarray) -> None:
        """Hold ``action`` for 25 ms.

        Args:
            action: (4,) in [-1, 1]: hand velocity x, y, z and gripper effort, positive closes.
        """
        exact = np.asarray(action, np.float64)  # the same physics whether the action comes from memory or from a file
        self._env.set_xyz_action(exact[:3])
        self._env.do_simulation([exact[3], -exact[3]], n_frames=self._env.frame_skip)
        self.observation, reward, _, _, info = self._env.step(exact)
        self._after(success=bool(info["success"]), shaped_reward=float(reward))

    def _after(self, *, success: bool, shaped_reward: float) -> None:
        self.success = success
        self.shaped_reward = shaped_reward
        self._images = None

    def images(self) -> dict[str, np.ndarray]:
        """Return (H, W, 3) uint8 RGB images by feature key, drawn at most once per step."""
        if self._images is None:
            drawn = self.renderer.render(self._env.model, self._env.data) if self.renderer else {}
            self._images = {CAMERA_KEY + name: image for name, image in drawn.items()}
        return self._images

    def states(self) -> dict[str, np.ndarray]:
        """Return the state features by key.

        ``observation.state`` (8,) float32: hand x, y, z (m) and gripper opening (0..1) now and 25 ms earlier.
        ``observation.environment_state`` (17,) float32: object x, y, z, quaternion now, the same 25 ms earlier,
        goal x, y, z. Tasks with a second object have it in neither; only the cameras see it.
        """
        now, earlier = self.observation[NOW:EARLIER], self.observation[EARLIER:]
        robot = np.concatenate([now[HAND_AND_GRIPPER], earlier[HAND_AND_GRIPPER]])
        scene = np.concatenate([now[OBJECT_POSE], earlier[OBJECT_POSE], self.observation[GOAL]])
        return {STATE: robot.astype(np.float32), ENVIRONMENT_STATE: scene.astype(np.float32)}

    def close(self) -> None:
        """Free the renderer."""
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None

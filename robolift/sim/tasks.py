"""The Meta-World tasks by name, with the instruction given to a policy; needs no simulator."""

from __future__ import annotations

import re

from robolift.errors import UsageError

DEFAULT_TASK = "pick-place-v3"

# Instructions follow the task descriptions of Yu et al. 2019, Meta-World, appendix A.
TASKS: dict[str, str] = {
    "assembly-v3": "pick up the nut and place it onto the peg",
    "basketball-v3": "dunk the basketball into the basket",
    "bin-picking-v3": "move the puck from one bin to the other",
    "box-close-v3": "grasp the cover and close the box with it",
    "button-press-topdown-v3": "press the button from the top",
    "button-press-topdown-wall-v3": "bypass the wall and press the button from the top",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "bypass the wall and press the button",
    "coffee-button-v3": "push the button on the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "rotate the dial",
    "disassemble-v3": "pick the nut off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "push the drawer closed",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "turn the faucet clockwise",
    "faucet-open-v3": "turn the faucet counter-clockwise",
    "hammer-v3": "hammer the screw into the wall",
    "hand-insert-v3": "insert the puck into the hole by hand",
    "handle-press-side-v3": "press the handle down sideways",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up sideways",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg sideways",
    "peg-unplug-side-v3": "unplug the peg sideways",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "pick-place-v3": "pick up the puck and place it at the goal",
    "pick-place-wall-v3": "pick up the puck, bypass the wall and place it at the goal",
    "plate-slide-back-side-v3": "pull the plate out of the cabinet sideways",
    "plate-slide-back-v3": "pull the plate out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet sideways",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "pull the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "bypass the wall and push the puck to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "bypass the wall and reach the goal",
    "shelf-place-v3": "place the puck onto the shelf",
    "soccer-v3": "kick the ball into the goal",
    "stick-pull-v3": "pull the box with the stick",
    "stick-push-v3": "push the box with the stick",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
    "window-close-v3": "push the window closed",
    "window-open-v3": "push the window open",
}
CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
CAMERA_KEY = "observation.images."
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
STATE_DIM = 8
ENVIRONMENT_STATE_DIM = 17
ACTION_DIM = 4
CONTROL_HZ = 40


def check_task(task: str) -> str:
    """Return ``task`` if Meta-World has it.

    Raises:
        UsageError: Listing the tasks.
    """
    if task not in TASKS:
        raise UsageError(f"no Meta-World task {task!r}; there are: {', '.join(TASKS)}")
    return task


def camera_name(key: str) -> str:
    """Return the simulator's name of a camera feature, ``topview`` for ``observation.images.topview``.

    Raises:
        UsageError: If the simulator has no such camera.
    """
    name = re.sub(f"^{re.escape(CAMERA_KEY)}", "", key)
    if name not in CAMERAS:
        raise UsageError(f"the simulator has no camera {key!r}; it has: {', '.join(CAMERAS)}")
    return name


def camera_key(name: str) -> str:
    """Return the feature that camera ``name`` is recorded under."""
    return CAMERA_KEY + name

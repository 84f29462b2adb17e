"""MediaPipe's hand landmarker: what it finds, that it forgets, that it opens no connection."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clip_models import HANDS, model
from emoji import with_hand
from small_clips import grey, watch

from robolift.clips.extractor import Tools
from robolift.errors import DataError

HERE = Path(__file__).parent
MOVING = [(60 + 4 * step, 80) for step in range(5)]


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(hand_model=Path(model(HANDS)).read_bytes())


def test_a_hand_is_found_where_it_is_and_followed(tools):
    found = watch("hands", [with_hand(*place) for place in MOVING], tools=tools)
    assert found.scalars["hands"] == 1
    # 4 px of 240 in a fifteenth of a second: 0.25 pictures a second.
    assert found.scalars["hand_motion"] == pytest.approx(0.25, rel=0.1)
    middle = np.array([(x + 35, y + 35) for x, y in MOVING]) / 240
    np.testing.assert_allclose(found.tracks["hand_x"], middle[:, 0], atol=0.05)
    np.testing.assert_allclose(found.tracks["hand_y"], middle[:, 1], atol=0.05)


def test_there_is_no_hand_in_grey(tools):
    found = watch("hands", [grey(128, 240)] * 3, tools=tools)
    assert found.scalars == {"hands": 0.0}
    assert found.missing == {"hand_motion": "no two neighbouring frames with a hand"}
    assert np.isnan(found.tracks["hand_x"]).all()


def test_a_clip_is_measured_alike_whatever_came_before(tools):
    clip = [with_hand(*place) for place in MOVING[:3]]
    alone = watch("hands", clip, tools=tools)
    watch("hands", [with_hand(120, 20)] * 3, tools=tools)
    after = watch("hands", clip, tools=tools)
    assert after.scalars == alone.scalars
    np.testing.assert_array_equal(after.tracks["hand_x"], alone.tracks["hand_x"])


def test_a_file_that_is_no_bundle_is_refused():
    with pytest.raises(DataError, match="MediaPipe can't use the hand model"):
        watch("hands", [grey(128)], tools=Tools(hand_model=b"no bundle"))


def run_without_internet(code: str) -> int:
    prelude = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]\nimport no_internet\nno_internet.forbid()\n"
    )
    done = subprocess.run([sys.executable, "-c", prelude + code], check=False, capture_output=True, text=True)
    return done.returncode


def test_finding_hands_opens_no_connection():
    look = (
        "from pathlib import Path\n"
        "from clip_models import HANDS, model\nfrom emoji import with_hand\nfrom small_clips import watch\n"
        "from robolift.clips.extractor import Tools\n"
        "tools = Tools(hand_model=Path(model(HANDS)).read_bytes())\n"
        "assert watch('hands', [with_hand(60, 80)] * 2, tools=tools).scalars['hands'] == 1\n"
    )
    assert run_without_internet(look) == 0
    # The guard sees what is opened, from C too.
    assert run_without_internet("import socket; socket.socket(socket.AF_UNIX)") == 0
    assert run_without_internet("import socket; socket.socket(socket.AF_INET)") == -signal.SIGSYS
    assert run_without_internet("import ctypes; ctypes.CDLL(None).socket(10, 1, 0)") == -signal.SIGSYS

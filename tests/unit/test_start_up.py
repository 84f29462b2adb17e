"""What the command line imports before it works: no library that it has no use for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolift.stages import NAMES

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": str(HERE)}

HEAVY = (
    *(
        "torch",
        "jax",
        "flax",
        "optax",
        "transformers",
        "kfp",
        "kubernetes",
        "matplotlib",
        "pandas",
        "mujoco",
        "metaworld",
    ),
    *("cv2", "PIL", "scipy", "sklearn", "s3fs", "aiohttp", "requests", "httpx", "rich", "structlog", "tqdm", "fsspec"),
)
LABEL_ONLY = (
    "label_returns",
    "merge_values",
    "label_advantage",
    "merge_rewards",
    "import_rewards",
    "compute_norm_stats",
)
"""Stages that read and write tables alone."""
PROBE = """
import contextlib, io, json, os, runpy, sys
import robolift.__main__, robolift.stages.stage  # once for all, which takes most of the time

def modules_after(*words):
    sys.argv = ["robolift", *words]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module("robolift", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            assert not stop.code, stop.code
    ours = {name for name in sys.modules if name.startswith("robolift.")}
    return sorted({name.split(".")[0] for name in sys.modules} | {"pyarrow.compute"} & set(sys.modules) | ours)

for words in json.loads(sys.argv[1]):
    child = os.fork()  # each from here on, as if it were the first
    if not child:
        print(json.dumps([words[0], modules_after(*words)]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, words
"""


def modules_after(commands: list[list[str]]) -> dict[str, list[str]]:
    """Return what each command of the package has imported when it is done, by its first word."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_help_imports_neither_a_model_library_nor_a_table_library():
    program = (
        "import sys, robolift.__main__ as r\ntry: r.main(['label_advantage', '--help'])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {*HEAVY, "numpy", "pyarrow", "pydantic"}


@pytest.fixture(scope="module")
def modules_of_descriptions():
    """What is imported when ``--describe`` has been answered, by stage."""
    return modules_after([[name, "--describe"] for name in NAMES])


@pytest.mark.parametrize("name", NAMES)
def test_describing_a_stage_imports_no_model_library(modules_of_descriptions, name):
    assert not set(modules_of_descriptions[name]) & set(HEAVY)


@pytest.mark.parametrize("name", LABEL_ONLY)
def test_a_stage_of_tables_opens_no_video_library_and_no_kernels_before_it_works(modules_of_descriptions, name):
    assert not set(modules_of_descriptions[name]) & {"av", "pyarrow.compute", "asyncio", "yaml"}


def test_labels_are_planned_without_a_video_library_kernels_and_what_other_commands_need(dataset, tmp_path):
    given = ["--set", f"output_root={tmp_path}", "--set", f"inputs.dataset={dataset.uri}", "--dry-run"]
    imported = set(modules_after([["label_returns", *given]])["label_returns"])
    assert not imported & {*HEAVY, "av", "pyarrow.compute", "asyncio", "yaml"}
    others = ("planner", "annotators", "policy", "value_model", "launch", "clips", "reports")
    assert not [name for name in imported if name.startswith(tuple(f"robolift.{other}" for other in others))]
    assert {"robolift.stages.label_returns", "robolift.labeling.returns"} <= imported

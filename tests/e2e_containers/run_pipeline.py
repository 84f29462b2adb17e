"""Run a compiled pipeline, each step in a container of its image: ``run_pipeline.py JOB.json``.

A process of its own, because KFP's local runner keeps its settings for the whole process and replaces ``print``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import docker
import yaml
from kfp import local

from components._local import for_this_machine

USER = "10001:0"


def main() -> int:
    """Run what the file describes and return 0; a failed step is an exception."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    mounts = [docker.types.Mount(path, path, type="bind", read_only=mode == "ro") for path, mode in job["mounts"]]
    runner = local.DockerRunner(
        environment=job["environment"],
        mounts=mounts,
        network_mode="host",
        user=USER,
        read_only=True,
        tmpfs={"/tmp": "exec,mode=1777"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    root = folder / "kfp"
    root.mkdir()
    os.chown(root, *map(int, USER.split(":")))  # the steps make their own folders below it
    local.init(runner, pipeline_root=str(root), raise_on_error=True)
    specification = next(yaml.load_all(Path(job["package"]).read_text(), Loader=yaml.CSafeLoader))
    graph = for_this_machine(specification, served=False)
    graph(**job["parameters"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

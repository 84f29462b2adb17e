"""Plans and shards for tests: what a perfect model says, and what became of it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import synthetic
from openai_server import MODEL

from robolift import storage
from robolift.manifest import MANIFEST_FILE
from robolift.schema import read_parquet
from robolift.stages.stage import execute

TOPVIEW = {"cameras": [synthetic.TOPVIEW]}


def say(request):
    """What a perfect model says to the product's own questions."""
    progress, text = request.progress, request.text
    if "JSON list" in text:
        return json.dumps([round(100 * value) for value in progress[1:]])
    if "1 to 5" in text:
        return str(1 + round(4 * progress[-1]))
    return f"{100 * (progress[-1] - progress[0]):+.0f}"


def plan(dataset, root, protocol="rubric", **config):
    config = {"model": MODEL, "endpoint": "http://127.0.0.1:9/v1", "protocol": protocol, **TOPVIEW, **config}
    return execute("plan_labels", config, {"dataset": dataset.uri}, str(root))


def annotate(dataset, planned, server, root, **config):
    config = {"endpoint": server.url, "max_tries": 3, **config}
    return execute("annotate_rewards", config, {"dataset": dataset.uri, "plan": planned.uri}, str(root))


def anchors(made):
    return read_parquet(made.file("anchors.parquet")).to_pylist()


def errors(made):
    return storage.read_json(made.file("errors.json"))


def digests(made):
    """Return the SHA-256 of every file of an output but the manifest, which says where it lies."""
    folder = Path(storage.local_path(made.uri))
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_FILE
    }


def records(root):
    """Return every answer that is kept; hidden beside them lies what a process has not published yet."""
    kept = [name for name, _ in storage.list_files(str(root)) if re.fullmatch(r"answers/\w\w/\w+\.json", name)]
    return {name: storage.read_bytes(f"{root}/{name}") for name in kept}


def command(dataset, planned, server, root, **config):
    sets = {"output_root": root, "inputs.dataset": dataset.uri, "inputs.plan": planned.uri, "endpoint": server.url}
    sets |= config
    return [
        sys.executable,
        "-m",
        "robolift",
        "annotate_rewards",
        *(arg for key, value in sets.items() for arg in ("--set", f"{key}={value}")),
    ]

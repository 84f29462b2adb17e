"""The guide's commands run by a real shell, over programs that write down how they were called.

``make submit`` is the real one with ``DRY_RUN=1``, ``kubectl kustomize`` is kubectl's own; nothing else does anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rendered_chart import ROOT, merge

GUIDE = (ROOT / "docs" / "cluster.md").read_text()
TITLES = {"gke": "GKE", "eks": "EKS", "kind": "kind"}
IMAGES = ("cpu", "torch", "jax", "review")
LOCK = {name: f"registry.example/robolift-{name}@sha256:{str(i) * 64}" for i, name in enumerate(IMAGES)}
TOOLS = Path(sys.prefix) / "tools" / "kubectl"
KUBECTL = shutil.which("kubectl") or (str(TOOLS) if TOOLS.exists() else None)
PROGRAMS = ("aws", "curl", "docker", "eksctl", "gcloud", "git", "helm", "kind", "kubectl", "make")
ANSWERS = {
    "aws sts get-caller-identity": "111122223333",
    "aws iam create-policy": "arn:aws:iam::111122223333:policy/NAME",
    "aws ecr describe-repositories": "registry.example/robolift-cpu",
    "gcloud projects describe": "123456789012",
    "gcloud artifacts repositories describe": "registry.example/robolift",
}
PROGRAM = """#!{python}
import json, os, subprocess, sys
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
stdin = sys.stdin.read() if "-f" in args and args[args.index("-f") + 1] == "-" else ""
done = None
if name == "make" and args[0] == "submit":
    command = ["{make}", "--no-print-directory", "-o", "install", *args, "DRY_RUN=1"]
    done = subprocess.run(command, capture_output=True, text=True)
if name == "kubectl" and args[0] == "kustomize":
    done = subprocess.run(["{kubectl}", *args], capture_output=True, text=True)
said = done.stdout + done.stderr if done else ""
for words, answer in {answers}.items():
    if " ".join([name, *args]).startswith(words):
        said = answer.replace("NAME", args[args.index("--policy-name") + 1] if "--policy-name" in args else "")
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(dict(name=name, args=args, stdin=stdin, said=said)) + "\\n")
print(done.stdout if done else said)
sys.exit(done.returncode if done else 0)
"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A program as the shell called it: its arguments, what came in, what it said."""

    name: str
    args: list[str]
    stdin: str = ""
    said: str = ""

    def __str__(self) -> str:
        return " ".join([self.name, *self.args])

    def value(self, option: str) -> str:
        """Return what stands after an option."""
        return self.args[self.args.index(option) + 1]


@dataclass
class Walk:
    """What a reader of the guide has called, in order, and where."""

    folder: Path
    calls: list[Call] = field(default_factory=list)

    def of(self, start: str) -> list[Call]:
        """Return the calls that begin with these words."""
        return [call for call in self.calls if str(call).startswith(start)]

    def chart_values(self, call: Call) -> dict[str, Any]:
        """Return the values that a call of helm gives the chart: files, then what is set, as Helm lays them."""
        values = yaml.safe_load((self.folder / call.value("-f")).read_text()) or {}
        for option, text in zip(call.args, call.args[1:], strict=False):
            if option in ("--set", "--set-json"):
                key, _, told = text.partition("=")
                leaf = json.loads(told) if option == "--set-json" else yaml.safe_load(told)
                for part in reversed(re.split(r"(?<!\\)\.", key)):
                    leaf = {part.replace("\\.", "."): leaf}
                values = merge(values, leaf)
        return values


def section(title: str) -> str:
    """Return what the guide says below one of its headings."""
    return re.split(r"^## ", GUIDE.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str, overlay: str) -> str:
    """Return the commands that a reader with this overlay runs: blocks without a name, and those with the overlay's."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    marks = [re.match(r"# ((?:GKE|EKS|kind)(?:, (?:GKE|EKS|kind))*)\n", block) for block in blocks]
    return "\n".join(
        block for block, mark in zip(blocks, marks, strict=True) if not mark or TITLES[overlay] in mark[1].split(", ")
    )


def workplace(folder: Path) -> None:
    """Lay out a checkout in ``folder``, with images pushed, or not."""
    for name in ("Makefile", "k8s", "charts", "params", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    # Copies: Python looks for a script's modules where a link leads to, and the lock lies beside them.
    shutil.copy(ROOT / "pipeline.py", folder)
    shutil.copytree(ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bin").mkdir()
    text = PROGRAM.format(python=sys.executable, make=shutil.which("make"), kubectl=KUBECTL, answers=ANSWERS)
    for name in PROGRAMS:
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)


def walk(folder: Path, script: str) -> Walk:
    """Run commands in a workplace, stopping at the first that fails."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ROBOLIFT_", "MAKE", "MFLAGS"))}
    env["PATH"] = f"{folder / 'bin'}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", f"{script}\nwait"],
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = (folder / "calls.jsonl").read_text().splitlines()
    result = Walk(folder, [Call(**json.loads(line)) for line in lines])
    assert done.returncode == 0, f"{result.calls[-1]}\n{result.calls[-1].said}\n{done.stderr}"
    return result

"""What is imported with what: XLA is told in every process that computes with JAX, and libraries come by preset."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import robolift.policy

PACKAGE = Path(robolift.policy.__file__).parent
XLA = "robolift.policy.xla"


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports when it is imported itself; `from a import b` counts as both."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_that_uses_jax_tells_xla_first():
    modules = {
        ".".join(("robolift.policy", *path.relative_to(PACKAGE).with_suffix("").parts)): _imports(path)
        for path in PACKAGE.rglob("*.py")
    }

    def tells(name: str, seen: frozenset[str] = frozenset()) -> bool:
        if name == XLA:
            return True
        return name not in seen and any(tells(each, seen | {name}) for each in modules.get(name, ()))

    users = [name for name, imported in modules.items() if any(each.split(".")[0] == "jax" for each in imported)]
    assert len(users) > 15
    assert [name for name in users if not tells(name)] == []


def _loaded(program: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PJRT_NPROC", "XLA_FLAGS")}
    program += "\nimport os, sys; print(os.environ.get('PJRT_NPROC'), *sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_a_command_without_jax_tells_xla_nothing():
    told, *modules = _loaded("import robolift.__main__, robolift.stages.train_policy")
    assert told == "None"
    assert {"jax", XLA} & set(modules) == set()


def test_a_small_policy_is_served_without_the_libraries_of_large_ones(tmp_path):
    from toy_policies import save_small

    save_small(tmp_path)
    told, *modules = _loaded(
        f"from robolift.policy.serving import Policy; Policy.load({str(tmp_path)!r})\n"
        "import robolift.policy.train, robolift.policy.server.served"
    )
    assert told == "1"
    assert "robolift.policy.chunk_network" in modules
    large = ("orbax", "tensorstore", "sentencepiece", "robolift.policy.pi05.")
    light = {"robolift.policy.pi05.config", "robolift.policy.pi05.settings"}
    assert [name for name in modules if name.startswith(large) and name not in light] == []

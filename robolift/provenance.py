"""Which code made an output: the digest of a module and of everything in this package that it imports or names.

A change to the report must not retrain a policy, and a change to the advantage must relabel. So the code part of an
output's identity is the import closure of its stage, not the commit and not the image.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import pkgutil
import re
from pathlib import Path

PACKAGE = "robolift"
PACKAGE_DIR = Path(__file__).parent
LISTS_ITSELF = "iter_modules(__path__)"
"""In a package that takes in whatever modules lie in it."""
MODULE = re.compile(rf"{PACKAGE}(\.\w+)+")
QUOTED = re.compile(rf"""["']{PACKAGE}\.""")
GAP = r"(?:[ \t]|\\\n)"
LEXEMES = re.compile(
    r'#[^\n]*|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""|"(?:[^"\\\n]|\\.)*"'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''|'(?:[^'\\\n]|\\.)*'"
    rf"|((?:from\b(?:{GAP}|[\w.])+)?import(?<![\w.]import)"  # no longer name that ends so
    rf"(?:{GAP}*\((?:#[^\n]*|[^)#])*\)|{GAP}(?:\\\n|[^\n;#])*))",
    re.DOTALL,
)
"""Comments and texts, passed over whatever stands in them, and what is looked for: a statement that imports."""
DATA_SUFFIXES = frozenset({".html", ".css", ".js", ".json", ".yaml", ".txt"})
# These carry bytes and words, not results: editing a log line keeps every finished output.
NEUTRAL = frozenset(
    {
        "robolift",  # holds the version: a release alone changes no result
        "robolift.logging",
        "robolift.errors",
        "robolift.storage",
        "robolift.staging",
        "robolift.provenance",
        "robolift.manifest",
        "robolift.stages",
        "robolift.stages.stage",
    }
)


def _file(module: str) -> Path | None:
    base = PACKAGE_DIR.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(source: str, package: str) -> set[str]:
    """Return what ``source``, a module of ``package``, imports of this product, with the packages on the way.

    A module whose name stands in a string counts too: it is run in a process of its own, by ``python -m``.
    """
    names: set[str] = set()
    # Every start of a stage waits for this, and the syntax tree of all that is no import takes ten times as long.
    for node in ast.parse("\n".join(filter(None, LEXEMES.findall(source)))).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    if QUOTED.search(source):  # a file in ten
        texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
        names.update(text for text in texts if isinstance(text, str) and MODULE.fullmatch(text))
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}


def import_closure(module: str) -> tuple[str, ...]:
    """Return the sorted names of the package's modules that ``module`` reaches, itself included.

    A package that lists its own modules, to register whatever is there, reaches all of them.
    """
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        path = _file(name)
        if name in seen or name in NEUTRAL or path is None:
            continue
        seen.add(name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = path.read_text(encoding="utf-8")
        queue += sorted(_imports(source, package))
        if path.name == "__init__.py" and LISTS_ITSELF in source:
            queue += [f"{name}.{module.name}" for module in pkgutil.iter_modules([str(path.parent)])]
    return tuple(sorted(seen))


@functools.cache
def code_digest(module: str) -> str:
    """Return 16 hex digits of the source of ``module`` and its import closure, and of the data files beside them."""
    files: set[Path] = set()
    for name in import_closure(module):
        path = _file(name)
        assert path is not None
        files.add(path)
        if path.parent != PACKAGE_DIR:
            files.update(beside for beside in path.parent.iterdir() if beside.suffix in DATA_SUFFIXES)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(PACKAGE_DIR).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

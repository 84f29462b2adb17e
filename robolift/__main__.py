"""Command line: ``python -m robolift <stage> --config FILE [--set key=value]``, or another command."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from robolift import __version__, logging, storage
from robolift.errors import EXIT_INTERNAL, EXIT_TERMINATED, EXIT_USAGE, RoboliftError, UsageError
from robolift.stages import NAMES

if TYPE_CHECKING:
    from robolift.manifest import Plan
    from robolift.stages.stage import Inputs, StageConfig

COPIES = {
    "upload": "copy a local folder to a bucket or any other store",
    "download": "copy a folder of a bucket or any other store to this machine",
}
COMMANDS = {
    "review": ("robolift.annotators.review.cli:serve", "serve the page on which people label"),
    "plan": ("robolift.planner.cli:run", "say what training, or with --dataset a pipeline, takes before it is run"),
    "serve": ("robolift.policy.server.cli:serve", "serve a trained policy to robots"),
    "export-policy": ("robolift.policy.export_cli:run", "write a trained policy in a form that openpi loads"),
}
"""By name the module and function of what is no stage, and its line of help."""
PROFILED = ("train_value", "train_policy")
KEYS = ("output_root", "inputs", "config", "variants")
ADDRESS = re.compile(r"[\w.]*(:/)?/[\w./-]*", re.ASCII)
"""What YAML reads as the same text, so that it needn't be imported for addresses alone."""


class _Parser(argparse.ArgumentParser):
    command = ""
    """Module and function that do what is asked, imported once they are: a stage needs none of them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command:
            module, _, function = self.command.partition(":")
            imported = importlib.import_module(module)
            imported.add_arguments(self)
            self.set_defaults(run=getattr(imported, function))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> Any:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m robolift", description="Run one stage on this machine.")
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name in NAMES:
        stage = stages.add_parser(
            name,
            help=f"run {name}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="The FILE is YAML: `output_root`, `inputs` (name: address of a finished output) and `config`; with\n"
            "`variants` (name: {inputs, config}) the stage runs once for each, on what differs from the rest.",
        )
        stage.add_argument("--config", metavar="FILE", help="YAML file, any address")
        stage.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="K=V",
            help="override: lookahead=10, inputs.dataset=URI, output_root=URI",
        )
        stage.add_argument(
            "--dry-run",
            action="store_true",
            help="check everything, print the plan and what the stage can tell beforehand, write nothing",
        )
        if name in PROFILED:
            stage.add_argument(
                "--profile",
                dest="set",
                action="append_const",
                const="profile=5",
                help="record five steps of training with the profiler; --set profile=N records N",
            )
        stage.add_argument("--describe", action="store_true", help="print every configuration field and stop")
    for name, (command, text) in COMMANDS.items():
        stages.add_parser(name, help=text).command = command
    for name, text in COPIES.items():
        copy = stages.add_parser(name, help=text, description=f"{text.capitalize()}; nothing is ever deleted.")
        copy.add_argument("source", metavar="SRC", help="folder to copy from")
        copy.add_argument("target", metavar="DST", help="folder to copy to, any address")
        copy.add_argument("--dry-run", action="store_true", help="print what would be copied and stop")
        copy.add_argument("--force", action="store_true", help="copy what is there already, too")
    return parser


def _read_file(uri: str | None) -> dict[str, Any]:
    if uri is None:
        return {}
    document = _from_yaml(storage.read_bytes(uri), where=f"{uri} is not YAML") or {}
    if not isinstance(document, dict):
        raise UsageError(f"{uri} holds {document!r}; expected the keys {', '.join(KEYS)}")
    _check_keys(document, KEYS, where=uri)
    for name, variant in (document.get("variants") or {}).items():
        if not isinstance(variant, dict):
            raise UsageError(f"{uri}: variant {name} is {variant!r}; expected a mapping with inputs or config")
        _check_keys(variant, ("inputs", "config"), where=f"{uri}: variant {name}")
    return dict(document)


def _from_yaml(text: bytes | str, *, where: str) -> Any:
    import yaml  # noqa: PLC0415  (--help must be quick)

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: {error}") from None


def _check_keys(document: dict[Any, Any], expected: Sequence[str], *, where: str) -> None:
    unknown = sorted(str(key) for key in set(document) - set(expected))
    if unknown:
        raise UsageError(f"{where}: unknown keys {', '.join(unknown)}; expected {', '.join(expected)}")
    for key in ("inputs", "config", "variants"):
        if not isinstance(document.get(key) or {}, dict):
            raise UsageError(f"{where}: {key} is {document[key]!r}; expected a mapping")


def expand_variants(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what to run, by variant: inputs and config of each laid over those that all share.

    Without variants it is ``document`` alone, under an empty name.
    """
    shared = {key: value for key, value in document.items() if key != "variants"}
    return {
        str(name): {
            **shared,
            **{key: {**(shared.get(key) or {}), **(variant.get(key) or {})} for key in ("inputs", "config")},
        }
        for name, variant in (document.get("variants") or {"": {}}).items()
    }


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``document`` with ``k=v`` applied; a bare key belongs to ``config``, values are YAML.

    Raises:
        UsageError: If an override has no ``=``, is not YAML or reaches into something that is not a mapping.
    """
    result = {
        **document,
        "inputs": dict(document.get("inputs") or {}),
        "config": dict(document.get("config") or {}),
    }
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or key in ("", "inputs", "config"):
            raise UsageError(f"--set {override!r}: expected key=value, such as lookahead=10 or inputs.dataset=URI")
        value = text if ADDRESS.fullmatch(text) else _from_yaml(text, where=f"--set {override!r}")
        parts = key.split(".")
        if parts == ["output_root"]:
            result["output_root"] = value
            continue
        target: dict[str, Any] = result["config"]
        if parts[0] in ("inputs", "config"):
            target = result[parts.pop(0)]
        for part in parts[:-1]:
            if not isinstance(target.get(part) or {}, dict):
                raise UsageError(f"--set {override!r}: {part} is {target[part]!r}, not a mapping")
            target[part] = dict(target.get(part) or {})
            target = target[part]
        target[parts[-1]] = value
    return result


def _copy(args: argparse.Namespace) -> Iterator[str]:
    from robolift.clips.sync import plan_sync, sync  # noqa: PLC0415

    here = args.source if args.stage == "upload" else args.target
    if storage.local_path(here) is None:
        raise UsageError(
            f"{args.stage}: {here} is not on this machine; expected upload LOCAL ANY or download ANY LOCAL"
        )
    plan = plan_sync(args.source, args.target, force=args.force)
    verb = "would be copied" if args.dry_run else "copied"
    if args.dry_run:
        for each in plan.transfers:
            what = "new" if each.reason == "new" else f"overwrites ({each.reason})"
            yield f"{each.name}  {each.bytes} bytes, {what}"
    else:
        sync(plan)
    if plan.skipped:
        yield f"{len(plan.skipped)} skipped, named like a copy that is not whole yet: {', '.join(plan.skipped)}"
    yield (
        f"{len(plan.transfers)} files {verb} ({plan.bytes} bytes), of which {plan.overwritten} over others; "
        f"{plan.present} were there, {plan.others} others at the target left alone"
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor for any in them later: they leave none."""
    gc.disable()
    try:
        yield
    finally:
        if __name__ == "__main__":  # the process is ours
            gc.freeze()
        gc.enable()


def _prepare(args: argparse.Namespace) -> dict[str, tuple[StageConfig, dict[str, Any], Inputs, Plan]]:
    """Return what is to be run, checked, by variant: configuration, addresses of inputs, inputs, plan."""
    from robolift.stages import stage as stages  # noqa: PLC0415

    prepared = {}
    for name, variant in expand_variants(_read_file(args.config)).items():
        document = apply_overrides(variant, args.set)
        root = document.get("output_root")
        if not root or not isinstance(root, str):
            raise UsageError(
                f"output_root is {root!r}, expected an address: put it in the config file or pass --set output_root=URI"
            )
        config = stages.parse_config(args.stage, document["config"])
        inputs = stages.load_inputs(args.stage, document["inputs"])
        prepared[name] = (config, document["inputs"], inputs, stages.plan(args.stage, config, inputs, root))
    return prepared


def _run(args: argparse.Namespace) -> Iterator[str]:
    """Yield what to print, as it becomes known; everything is checked before any work."""
    if args.stage in COPIES:
        yield from _copy(args)
        return
    with _uncollected():
        from robolift.stages import stage as stages  # noqa: PLC0415  (--help must not import a stage)

        preview = getattr(stages.find(args.stage), "preview", None)
        if args.describe:
            from robolift.stages.description import describe  # noqa: PLC0415

            yield describe(args.stage)
            return
        prepared = _prepare(args)
    for name, (config, addresses, inputs, planned) in prepared.items():
        if not args.dry_run:
            uri = stages.execute(args.stage, config, addresses, planned.root).uri
            yield f"{name}: {uri}" if name else uri
            continue
        plan = {
            **({"variant": name} if name else {}),
            "stage": planned.stage,
            "uri": planned.uri,
            "config": planned.config,
            "reuse": planned.finished() is not None,
        }
        yield storage.to_json_bytes(plan).decode().rstrip()
        if preview is not None:
            yield f"\n{preview(config, inputs)}\n"


def _terminate(*_: Any) -> None:
    raise SystemExit(EXIT_TERMINATED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 64 usage, 65 data, 70 internal, 143 terminated."""
    try:
        args = _parser().parse_args(argv)
        if not getattr(args, "describe", False):  # which logs nothing
            logging.configure()
        signal.signal(signal.SIGTERM, _terminate)
        for text in getattr(args, "run", _run)(args):
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Exception:
        logging.get_logger("main").exception("internal error: please report this")
        return EXIT_INTERNAL
    return 0


def _leave(code: int) -> NoReturn:
    """End the process with ``code``.

    After an error or SIGTERM threads of Arrow may still be at work on what was opened, and now and then abort the
    process (134 in place of ``code``) while the interpreter is taken down. So it is not taken down; what registered for
    its end is called, and what was printed is written out.
    """
    if code:
        atexit._run_exitfuncs()
        with suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # what the process leaves needs no looking through, which takes as long as half the imports
    sys.exit(code)


if __name__ == "__main__":
    try:
        ended = main()
    except SystemExit as told:  # by SIGTERM, or by the parser
        ended = int(told.code or 0)
    _leave(ended)

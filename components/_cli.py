"""Command line of pipeline.py: list | compile | run | submit."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

import yaml
from kfp import Client, compiler
from kfp.dsl.base_component import BaseComponent

from components import _local, _parameters
from robolift import storage
from robolift.errors import EXIT_USAGE, RoboliftError, UsageError

DEFAULT_OUTPUT_ROOT = "runs"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pipeline.py", description="Compile, run and submit Robolift's pipelines.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="the pipelines and their parameters")
    compiled = commands.add_parser("compile", help="write the pipeline as YAML")
    run = commands.add_parser("run", help="run the compiled pipeline on this machine")
    submit = commands.add_parser("submit", help="submit it to Kubeflow Pipelines")
    for command in (compiled, run, submit):
        command.add_argument("pipeline", metavar="PIPELINE")
    compiled.add_argument("--output", metavar="FILE", help="default: build/<pipeline>.yaml")
    for command in (run, submit):
        command.add_argument("--params", metavar="FILE", help="YAML file with the run's parameters")
        command.add_argument(
            "--set", action="append", default=[], metavar="K=V", help="override one parameter; may be repeated"
        )
        command.add_argument(
            "--dry-run", action="store_true", help="check the parameters, print the plan, start nothing"
        )
    run.add_argument("--name", default="", help="name of the run's folder below <output_root>/logs; default: the time")
    submit.add_argument(
        "--host", default=os.environ.get("KFP_HOST", ""), help="address of Kubeflow Pipelines; default: $KFP_HOST"
    )
    submit.add_argument("--experiment", default="robolift")
    return parser


def compile_to(pipeline: BaseComponent, path: Path) -> Dict[str, Any]:
    """Compile a pipeline to ``path`` and return its specification.

    The bytes depend only on the source and on the image references.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))
    return dict(next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)))


def _find(pipelines: Mapping[str, BaseComponent], name: str) -> BaseComponent:
    if name not in pipelines:
        raise UsageError(f"no pipeline {name!r}; there are: {', '.join(pipelines)}")
    return pipelines[name]


def _list(pipelines: Mapping[str, BaseComponent]) -> int:
    for name, pipeline in pipelines.items():
        print(f"{name}: {pipeline.description}")
        for key, facts in (pipeline.component_spec.inputs or {}).items():
            print(f"    {key}: {facts.type}{f' = {facts.default!r}' if facts.optional else ''}")
    return 0


def _run(package: Path, parameters: Mapping[str, Any], name: str) -> int:
    root = storage.normalize(str(parameters["output_root"]))
    logs = storage.local_path(root) or Path(DEFAULT_OUTPUT_ROOT).resolve()
    run_dir = logs / "logs" / (name or time.strftime("%Y%m%d-%H%M%S"))
    began = time.monotonic()
    console = _local.run(package, {**parameters, "output_root": root}, run_dir)
    seconds = round(time.monotonic() - began, 1)
    (run_dir / "timings.json").write_text(json.dumps({"seconds": seconds, "stages": console.timings}, indent=1) + "\n")
    lines = ["", f"finished in {seconds} s; log: {run_dir / 'run.log'}"]
    if console.report_uri:
        lines += ["", *summary_lines(console.report_uri)]
    # Not print(): kfp.local replaces it while its threads run and may leave it indenting.
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def summary_lines(report_uri: str) -> list[str]:
    """Return a report's table of results, for a terminal, and where the report is."""
    report, where = (storage.join(report_uri, name) for name in ("report.html", "summary.json"))
    summary = storage.read_json(where)
    lines = [summary["headline"], summary["detail"], ""]
    if summary["success"]:
        lines.append(f"{'policy':<22} success   95 % interval   episodes   frames to success")
    for row in summary["success"]:
        interval = f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"
        length = "-" if row["mean_length"] is None else f"{row['mean_length']:.0f}"
        lines.append(
            f"{row['name']:<22} {100 * row['success_rate']:5.0f} %   {interval:>13}   {row['n']:8d}   {length:>17}"
        )
    return [
        *lines,
        "",
        f"report:  {storage.local_path(report) or report}",
        f"summary: {storage.local_path(where) or where}",
    ]


def _submit(package: Path, spec: Mapping[str, Any], parameters: Mapping[str, Any], args: argparse.Namespace) -> int:
    if not args.host:
        raise UsageError("no --host and no $KFP_HOST: where is Kubeflow Pipelines?")
    moving = sorted({e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()})
    moving = [image for image in moving if "@sha256:" not in image]
    if moving:
        raise UsageError(
            f"images without a digest: {', '.join(moving)}; build and push them, then images.lock.json names them"
        )
    client = Client(host=args.host)
    created = client.create_run_from_pipeline_package(
        str(package), arguments=dict(parameters), experiment_name=args.experiment
    )
    print(f"submitted: {args.host}/#/runs/details/{created.run_id}")
    return 0


def _dispatch(pipelines: Mapping[str, BaseComponent], args: argparse.Namespace) -> int:
    if args.command == "list":
        return _list(pipelines)
    pipeline = _find(pipelines, args.pipeline)
    if args.command == "compile":
        path = Path(args.output or f"build/{args.pipeline}.yaml")
        compile_to(pipeline, path)
        print(path)
        return 0
    parameters = _parameters.overlay(_parameters.read(args.params) if args.params else {}, args.set)
    if args.command == "run":
        parameters.setdefault("output_root", DEFAULT_OUTPUT_ROOT)
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        package = Path(folder) / f"{args.pipeline}.yaml"
        spec = compile_to(pipeline, package)
        _parameters.check(spec, parameters)
        print(_parameters.plan(args.pipeline, spec, parameters))
        if args.dry_run:
            return 0
        if args.command == "submit":
            return _submit(package, spec, parameters, args)
        return _run(package, parameters, args.name)


def main(pipelines: Mapping[str, BaseComponent], argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 64 usage, 65 data, 70 a failed step."""
    try:
        return _dispatch(pipelines, _parser().parse_args(argv))
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code

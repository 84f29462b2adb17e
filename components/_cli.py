"""Command line of pipeline.py: what each command does."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

from google.protobuf import json_format
from kfp.compiler import pipeline_spec_builder
from kfp.dsl.base_component import BaseComponent

from components import _arguments, _parameters, _resources, _yaml
from robolift import storage
from robolift.errors import RoboliftError, UsageError

DEFAULT_OUTPUT_ROOT = "runs"
EXIT_INTERRUPTED = 130


def specification(pipeline: BaseComponent) -> Dict[str, Any]:
    """Return the specification of a pipeline: the first document of its compiled file."""
    return dict(json_format.MessageToDict(pipeline.pipeline_spec))


def compile_to(pipeline: BaseComponent, path: Path) -> Dict[str, Any]:
    """Compile a pipeline to ``path`` and return its specification.

    The bytes depend only on the source and on the image references.
    """
    spec = specification(pipeline)
    platform = _resources.with_pods(spec, json_format.MessageToDict(pipeline.platform_spec))
    heading = pipeline_spec_builder.extract_comments_from_pipeline_spec(spec, pipeline.description)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(heading + _yaml.dump_all([spec, platform]))  # as KFP's compiler writes it
    return spec


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


def _run(spec: Mapping[str, Any], parameters: Mapping[str, Any], name: str) -> int:
    from components import _local

    root = storage.normalize(str(parameters["output_root"]))
    logs = storage.local_path(root) or Path(DEFAULT_OUTPUT_ROOT).resolve()
    run_dir = logs / "logs" / (name or time.strftime("%Y%m%d-%H%M%S"))
    began = time.monotonic()
    console = _local.run(spec, {**parameters, "output_root": root}, run_dir)
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
    if summary.get("success"):
        lines.append(f"{'policy':<22} success   95 % interval   episodes   frames to success")
    for row in summary.get("success", []):
        interval = f"{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f} %"
        length = "-" if row["mean_length"] is None else f"{row['mean_length']:.0f}"
        lines.append(
            f"{row['name']:<22} {100 * row['success_rate']:5.0f} %   {interval:>13}   {row['n']:8d}   {length:>17}"
        )
    measured = {name: found for name, found in summary.get("quality", {}).items() if found["value"] is not None}
    if measured:
        lines.append(f"{'measure':<26}   value    clock   verdict")
    for name, found in measured.items():
        clock = "-" if found["clock"] is None else f"{found['clock']:.3f}"
        lines.append(f"{name:<26} {found['value']:7.3f}  {clock:>7}   {found['verdict']}")
    return [
        *lines,
        "",
        f"report:  {storage.local_path(report) or report}",
        f"summary: {storage.local_path(where) or where}",
    ]


def _follow(args: argparse.Namespace) -> int:
    """Look at, read or end a run that was submitted."""
    from components import _kubeflow, _runs, _wait

    run = _runs.run_id(args.run)
    patience = _wait.Patience.read(args.timeout, args.poll) if args.command == "status" else None
    kubeflow = _kubeflow.connect(args)
    if patience:
        return _wait.wait(kubeflow, run, patience) if args.wait else _runs.status(kubeflow, run)
    if args.command == "logs":
        return _runs.logs(kubeflow, run, args.step)
    return _runs.cancel(kubeflow, run, yes=args.yes)


def _schedules_without_pipeline(args: argparse.Namespace) -> int | None:
    """List or delete schedules; None if one is to be made.

    Raises:
        UsageError: If the options don't say what to do.
    """
    from components import _kubeflow, _schedules

    asked = [name for name in ("list", "delete", "cron") if getattr(args, name)]
    if len(asked) != 1:
        raise UsageError("schedule takes one of: PIPELINE --cron '0 0 2 * * *', --list, --delete NAME")
    if args.cron:
        args.cron = _schedules.check_cron(args.cron)
        if not args.pipeline:
            raise UsageError("schedule --cron needs a PIPELINE")
        return None
    kubeflow = _kubeflow.connect(args)
    return _schedules.show(kubeflow) if args.list else _schedules.delete(kubeflow, args.delete, dry_run=args.dry_run)


def _compiled(pipelines: Mapping[str, BaseComponent], args: argparse.Namespace, folder: Path) -> int:
    """Compile, check and show a pipeline, then run, submit, upload or schedule it."""
    parameters: Dict[str, Any] = {}
    if args.command != "upload":
        parameters = _parameters.overlay(_parameters.read(args.params) if args.params else {}, args.set)
    if args.command == "run":
        parameters.setdefault("output_root", DEFAULT_OUTPUT_ROOT)
    package = folder / f"{args.pipeline}.yaml"
    pipeline = _find(pipelines, args.pipeline)
    spec = specification(pipeline) if args.command == "run" else compile_to(pipeline, package)
    if args.command != "upload":
        _parameters.check(spec, parameters)
        print(_parameters.plan(args.pipeline, spec, parameters), flush=True)
    if args.command == "run":
        return 0 if args.dry_run else _run(spec, parameters, args.name)

    from components import _launch, _releases, _submit

    if args.command != "upload":
        for doubt in _launch.check_shapes(_parameters.stages_in(spec), parameters):
            print(f"note: {doubt}", flush=True)
    if not args.allow_tags:
        _releases.require_digests(spec)
    if args.dry_run:
        return 0
    job = _submit.Job(pipeline=args.pipeline, package=package, spec=spec, parameters=parameters)
    commands = {"submit": _submit.submit, "upload": _submit.upload, "schedule": _submit.schedule}
    return commands[args.command](job, args)


def _dispatch(pipelines: Mapping[str, BaseComponent], args: argparse.Namespace) -> int:
    if args.command == "list":
        return _list(pipelines)
    if args.command in ("status", "logs", "cancel"):
        return _follow(args)
    if args.command == "compile":
        path = Path(args.output or f"build/{args.pipeline}.yaml")
        compile_to(_find(pipelines, args.pipeline), path)
        print(path)
        return 0
    if args.command == "schedule" and (code := _schedules_without_pipeline(args)) is not None:
        return code
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        return _compiled(pipelines, args, Path(folder))


def main(pipelines: Mapping[str, BaseComponent], argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Returns:
        0 done, 1 a submitted run failed, 3 it goes on and was not seen to finish, 64 usage, 65 data, 69 the server is
        not to be reached, 70 a step failed on this machine, 130 interrupted.
    """
    try:
        return _dispatch(pipelines, _arguments.parser().parse_args(argv))
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return EXIT_INTERRUPTED

"""The options of pipeline.py."""

import argparse
import os
import sys
from typing import Any

from robolift.errors import EXIT_USAGE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def _parameters(command: argparse.ArgumentParser) -> None:
    command.add_argument("--params", metavar="FILE", help="YAML file with the run's parameters")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="K=V",
        help="override one parameter; may be repeated. make splits SET at spaces: a value with one goes into FILE",
    )
    command.add_argument("--dry-run", action="store_true", help="check everything, print the plan, start nothing")


def _images(command: argparse.ArgumentParser) -> None:
    command.add_argument("--allow-tags", action="store_true", help="accept images without a digest")


def _server(command: argparse.ArgumentParser) -> None:
    server = command.add_argument_group("server")
    server.add_argument(
        "--host", default="", help="address of Kubeflow Pipelines; default: $KFP_HOST or $KF_PIPELINES_ENDPOINT"
    )
    server.add_argument("--ui-host", default="", metavar="URL", help="address of its pages, if another; printed only")
    server.add_argument(
        "--namespace", default=os.environ.get("KFP_NAMESPACE", ""), help="your profile's, where several users share it"
    )
    server.add_argument("--token-file", default="", metavar="FILE", help="bearer token, read before each request")
    server.add_argument(
        "--auth", default="", choices=["kubectl", "iap"], help="token of a ServiceAccount, or for Google's proxy"
    )
    server.add_argument("--audience", metavar="NAME", help="whom the token is for; iap: the proxy's OAuth client id")
    server.add_argument(
        "--token-account", default="default-editor", metavar="NAME", help="ServiceAccount of --auth kubectl"
    )
    server.add_argument("--ca-file", default="", metavar="FILE", help="certificate authority; default: $SSL_CERT_FILE")


def _placed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--experiment", default="robolift", help="what the run is grouped under; default: robolift")
    command.add_argument("--service-account", default="", metavar="NAME", help="whose rights the run's pods have")
    command.add_argument("--pipeline-root", default="", metavar="URI", help="where Kubeflow keeps its own files")


def _waiting(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", action="store_true", help="follow it; exit 0 finished, 1 failed, 3 goes on unseen")
    command.add_argument("--timeout", default="0", metavar="TIME", help="with --wait: 90, 30m, 12h, 2d; default: never")
    command.add_argument("--poll", default="10", metavar="TIME", help="with --wait: between two looks; default: 10")


def _submitting(commands: Any) -> None:
    submit = commands.add_parser("submit", help="start a run on Kubeflow Pipelines")
    submit.add_argument("pipeline", metavar="PIPELINE")
    submit.add_argument("--run", default="", metavar="NAME", help="name of the run; default: pipeline and time")
    submit.add_argument("--release", action="store_true", help="upload a version first and run that")
    _waiting(submit)

    upload = commands.add_parser("upload", help="upload the pipeline as a version")
    upload.add_argument("pipeline", metavar="PIPELINE")
    upload.add_argument("--dry-run", action="store_true", help="check the images, upload nothing")

    schedule = commands.add_parser("schedule", help="run it again and again, list or delete what is scheduled")
    schedule.add_argument("pipeline", metavar="PIPELINE", nargs="?")
    schedule.add_argument("--cron", default="", metavar="'S M H D M W'", help="when, in UTC: '0 0 2 * * *' is 2:00")
    schedule.add_argument("--name", default="", help="name of the schedule; default: the pipeline's")
    schedule.add_argument("--replace", action="store_true", help="take the place of the one of this name")
    schedule.add_argument("--list", action="store_true", help="list what is scheduled")
    schedule.add_argument("--delete", default="", metavar="NAME", help="delete one; runs it started go on")

    for command in (submit, upload, schedule):
        _images(command)
        _server(command)
    for command in (submit, schedule):
        _parameters(command)
        _placed(command)


def _following(commands: Any) -> None:
    status = commands.add_parser("status", help="what a run is doing: steps, times, reasons, report")
    logs = commands.add_parser("logs", help="what its steps printed")
    cancel = commands.add_parser("cancel", help="end a run")
    for command in (status, logs, cancel):
        command.add_argument("run", metavar="RUN", help="the run's id, or the address of its page")
        _server(command)
    _waiting(status)
    logs.add_argument("--step", default="", metavar="NAME", help="one step, as train_value; default: all")
    cancel.add_argument("--yes", action="store_true", help="do not ask")


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    top = _Parser(prog="pipeline.py", description="Compile, run and submit Robolift's pipelines.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="the pipelines and their parameters")
    compiled = commands.add_parser("compile", help="write the pipeline as YAML")
    compiled.add_argument("pipeline", metavar="PIPELINE")
    compiled.add_argument("--output", metavar="FILE", help="default: build/<pipeline>.yaml")
    run = commands.add_parser("run", help="run the compiled pipeline on this machine")
    run.add_argument("pipeline", metavar="PIPELINE")
    run.add_argument("--name", default="", help="name of the run's folder below <output_root>/logs; default: the time")
    _parameters(run)
    _submitting(commands)
    _following(commands)
    return top

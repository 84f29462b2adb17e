"""``python -m robolift review``: serve the labelling page."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from robolift.errors import DataError, UsageError

if TYPE_CHECKING:
    from robolift.annotators.review.app import Review
    from robolift.annotators.review.footage import Footage
    from robolift.annotators.review.identity import Identity
    from robolift.annotators.review.job import Job, SourceDigest
    from robolift.annotators.review.lanes import Lanes

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
SHUTDOWN_S = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    data = parser.add_argument_group("what is labelled")
    shown = data.add_mutually_exclusive_group(required=True)
    shown.add_argument("--dataset", default="", metavar="URI", help="imported dataset")
    shown.add_argument("--clips", default="", metavar="URI", help="ClipSet, of which only pairs are compared")
    data.add_argument("--labels", required=True, metavar="URI", help="folder that keeps what people do")
    data.add_argument("--rewards", default="", metavar="URI", help="RewardSet to show, once a person is done")
    data.add_argument("--values", default="", metavar="URI", help="ValueSet to show, likewise")
    data.add_argument("--advantage", default="", metavar="URI", help="LabelSet to show, likewise")
    data.add_argument("--pairs", default="", metavar="URI", help="pairs to compare: a PairSet, or a CSV")
    data.add_argument("--gold", default="", metavar="URI", help="JSON of items with known answers")
    job = parser.add_argument_group("how")
    job.add_argument(
        "--ask", help="of segments, frames, outcome, stages (default: segments,outcome); empty: pairs only"
    )
    job.add_argument("--num-task-stages", type=int, default=1, metavar="N", help="stages that `stages` divides into")
    job.add_argument("--overlap", type=float, default=0.15, help="share of the items that several people label")
    job.add_argument("--annotators-per-item", type=int, default=2, metavar="N", help="how many people label those")
    job.add_argument("--gold-rate", type=float, default=0.1, help="share of offers that are gold items")
    job.add_argument("--lease-s", type=int, default=600, help="how long an item is kept for who does nothing")
    job.add_argument("--no-blind", action="store_true", help="show models' labels from the start")
    job.add_argument("--seed", type=int, default=0, help="decides which items overlap and the order of clips")
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on")
    server.add_argument("--port", type=int, default=8765, help="port to listen on; 0: any that is free")
    server.add_argument(
        "--served-name", nargs="+", default=[], metavar="NAME", help="further host names that browsers call it by"
    )
    who = parser.add_argument_group("who people are (without these: whoever has the printed link, on this machine)")
    who.add_argument("--identity-header", default="", metavar="NAME", help="header with the name, set by a proxy")
    who.add_argument("--trusted-proxy", nargs="+", default=[], metavar="CIDR", help="networks of that proxy")
    who.add_argument("--tokens", default="", metavar="FILE", help="YAML, `name: token` for everybody")


def serve(args: argparse.Namespace) -> Iterator[str]:
    """Serve until told to stop; requests under way are finished.

    Yields:
        Where the page is, once it can be opened.

    Raises:
        UsageError: If options don't fit, or the labels folder was begun with others.
        DataError: If what is to be shown is missing, damaged or of another dataset.
    """
    import uvicorn  # noqa: PLC0415  (--help must not import a web server)

    from robolift.annotators.review.app import create_app  # noqa: PLC0415
    from robolift.annotators.review.identity import LinkIdentity  # noqa: PLC0415

    identity = _identity(args)
    app = create_app(_review(args, identity))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the peer's address is what trust hangs on; no header may replace it
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    with _listen(args.host, args.port) as listening:
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        if isinstance(identity, LinkIdentity):
            yield f"labelling page: {address}?token={identity.token}&name=YOUR_NAME"
        else:
            yield f"labelling page: {address}"
        if not (is_loopback(args.host) or args.served_name):
            yield f"no --served-name: only pages opened as {host} or localhost are answered, others get 403"
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"can't listen on {host} port {port}: {error}; choose another --port") from None


def _identity(args: argparse.Namespace) -> Identity:
    from robolift.annotators.review.identity import LinkIdentity, ProxyIdentity, TokenIdentity  # noqa: PLC0415

    if args.identity_header and args.tokens:
        raise UsageError("--identity-header and --tokens are two ways to know people; give one")
    if args.trusted_proxy and not args.identity_header:
        raise UsageError("--trusted-proxy needs --identity-header: the header that the proxy sets")
    if args.identity_header:
        return ProxyIdentity(args.identity_header, args.trusted_proxy)
    if args.tokens:
        return TokenIdentity.read(args.tokens, args.labels)
    if not is_loopback(args.host):
        raise UsageError(
            f"--host {args.host} is open to other machines, and nothing says who people are: give --tokens, or "
            "--identity-header with --trusted-proxy, or listen on 127.0.0.1"
        )
    return LinkIdentity(args.labels)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _review(args: argparse.Namespace, identity: Identity) -> Review:
    """Open everything that is served, and check that it fits together."""
    from robolift import storage  # noqa: PLC0415
    from robolift.annotators.review import job as jobs  # noqa: PLC0415
    from robolift.annotators.review.app import Review  # noqa: PLC0415
    from robolift.annotators.review.desk import Desk  # noqa: PLC0415
    from robolift.annotators.review.pairs import read_pairs  # noqa: PLC0415

    _check_place(args.labels)
    footage, lanes, job = _clips(args) if args.clips else _dataset(args)
    lengths = footage.lengths if footage.noun == "episode" else []
    given = {}
    if args.pairs:
        pairs_uri = _pairs_file(args)
        read_pairs(pairs_uri, footage.naming)  # what is wrong is not kept
        given[jobs.PAIRS_FILE] = storage.read_bytes(pairs_uri)
    if args.gold:
        jobs.read_gold(args.gold, lengths)
        given[jobs.GOLD_FILE] = storage.read_bytes(args.gold)
    settled = jobs.settle(args.labels, job)
    for name, content in given.items():
        jobs.keep(args.labels, name, content)
    desk = Desk(
        args.labels,
        settled,
        lengths=lengths,
        pairs=read_pairs(storage.join(args.labels, jobs.PAIRS_FILE), footage.naming),
        gold=jobs.read_gold(storage.join(args.labels, jobs.GOLD_FILE), lengths),
    )
    if not any(desk.items.values()):
        raise UsageError("nothing is asked: give --pairs" + ("" if args.clips else ", or --ask"))
    hosts = {*LOOPBACK_NAMES, args.host, *args.served_name}
    return Review(footage=footage, desk=desk, lanes=lanes, identity=identity, hosts=hosts)


def _dataset(args: argparse.Namespace) -> tuple[Footage, Lanes, Job]:
    from robolift import manifest as manifests  # noqa: PLC0415
    from robolift.annotators.review.footage import EpisodeFootage  # noqa: PLC0415
    from robolift.annotators.review.job import sources_of  # noqa: PLC0415
    from robolift.annotators.review.lanes import Lanes  # noqa: PLC0415
    from robolift.data.dataset import Dataset  # noqa: PLC0415

    manifest = manifests.load(args.dataset)
    dataset = Dataset.open(manifest)
    lanes = Lanes(dataset, manifest, rewards_uri=args.rewards, values_uri=args.values, advantage_uri=args.advantage)
    asked = "segments,outcome" if args.ask is None else args.ask
    return EpisodeFootage(dataset), lanes, _job(args, asked, dataset=sources_of(dataset))


def _clips(args: argparse.Namespace) -> tuple[Footage, None, Job]:
    from robolift import manifest as manifests  # noqa: PLC0415
    from robolift.annotators.review.footage import ClipFootage  # noqa: PLC0415

    unfit = [name for name in ("ask", "rewards", "values", "advantage") if getattr(args, name)]
    if unfit:
        raise UsageError(f"{', '.join(f'--{name}' for name in unfit)}: of episodes; of --clips only --pairs are asked")
    manifest = manifests.load(args.clips)
    return ClipFootage(manifest), None, _job(args, "", clips=manifest.digest)


def _pairs_file(args: argparse.Namespace) -> str:
    """Return the CSV of a PairSet that was made of these clips, or ``--pairs`` itself if it is no finished output."""
    from robolift import manifest as manifests  # noqa: PLC0415
    from robolift import storage  # noqa: PLC0415
    from robolift.schema import Kind  # noqa: PLC0415

    uri = str(args.pairs)
    if not storage.exists(storage.join(uri, manifests.MANIFEST_FILE)):
        return uri
    pairs = manifests.expect(manifests.load(uri), Kind.PAIRS, name="pairs")
    made_of = [parent.digest for parent in pairs.inputs.get("clips", [])]
    if not args.clips or made_of != [manifests.load(args.clips).digest]:
        raise DataError(
            "these pairs are of other clips",
            where=uri,
            expected=args.clips or "a CSV of frames of episodes",
            mend="give the ClipSet that the pairs were proposed from",
        )
    return pairs.file("pairs.csv")


def _check_place(labels: str) -> None:
    """Check that the labels folder is not inside something finished, which would change.

    Raises:
        UsageError: If it is.
    """
    from robolift import storage  # noqa: PLC0415
    from robolift.manifest import MANIFEST_FILE  # noqa: PLC0415

    scheme, _, path = storage.normalize(labels).rstrip("/").partition("://")
    while path.strip("/"):
        if storage.exists(storage.join(f"{scheme}://{path}", MANIFEST_FILE)):
            raise UsageError(f"--labels {labels} lies in the finished output {scheme}://{path}; choose another folder")
        path = path.rpartition("/")[0]


def _job(args: argparse.Namespace, asked: str, *, dataset: tuple[SourceDigest, ...] = (), clips: str = "") -> Job:
    from pydantic import ValidationError  # noqa: PLC0415

    from robolift.annotators.review.job import Job  # noqa: PLC0415

    words = tuple(word.strip() for word in asked.split(",") if word.strip())
    try:
        return Job.model_validate(
            {
                "dataset": dataset,
                "clips": clips,
                "ask": words,
                "num_task_stages": args.num_task_stages,
                "overlap": args.overlap,
                "annotators_per_item": args.annotators_per_item,
                "gold_rate": args.gold_rate,
                "lease_s": args.lease_s,
                "blind": not args.no_blind,
                "seed": args.seed,
            }
        )
    except ValidationError as error:
        lines = [f"--{str(problem['loc'][0]).replace('_', '-')}: {problem['msg']}" for problem in error.errors()]
        raise UsageError("\n".join(lines)) from None

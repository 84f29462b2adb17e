"""``python -m robolift serve``: serve a trained policy to robots."""

from __future__ import annotations

import argparse
import math
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from robolift.errors import EXIT_TERMINATED, UsageError

if TYPE_CHECKING:
    from robolift.policy.server.app import PolicyServer

LABELS = ("positive", "negative", "as_sent")
PORT = 8000
"""openpi's."""
MAX_MESSAGE_MIB, MAX_CLIENTS = 64, 16
"""Twice their product is what messages may take of memory: 2 GiB."""
HUNG_AFTER_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", required=True, metavar="URI", help="policy: a finished output of train_policy")
    parser.add_argument(
        "--prompt-label",
        default=LABELS[0],
        choices=LABELS,
        help="advantage the policy acts under, whatever clients send (default: positive); as_sent: their prompts",
    )
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="strength of classifier-free guidance (default: 1, none)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen on ({PORT}); 0: any that is free")
    parser.add_argument(
        "--max-message-mib",
        type=float,
        default=MAX_MESSAGE_MIB,
        metavar="MIB",
        help=f"longest message a client may send ({MAX_MESSAGE_MIB})",
    )
    parser.add_argument(
        "--max-clients",
        type=int,
        default=MAX_CLIENTS,
        metavar="N",
        help=f"connections at once, a further one is told 503 ({MAX_CLIENTS}); each holds two messages at most",
    )
    parser.add_argument(
        "--hung-after-s",
        type=float,
        default=HUNG_AFTER_S,
        metavar="S",
        help=f"an answer that takes longer makes /livez say 503, so that the server is restarted ({HUNG_AFTER_S:g})",
    )


def serve(args: argparse.Namespace) -> Iterator[str]:
    """Serve until told to stop; answers under way are finished.

    Yields:
        Where the server is, once it answers.

    Raises:
        UsageError: If options don't fit, or the policy was not trained under the label.
        DataError: If the policy is missing or damaged.
        SystemExit: After SIGTERM.
    """
    _check(args)
    with _bind(args.host, args.port) as listening:
        server = _server(args)
        _open(listening)  # not before: whoever gets through is answered
        host, port = listening.getsockname()[:2]
        yield f"policy server: ws://{f'[{host}]' if ':' in host else host}:{port}"
        import asyncio  # noqa: PLC0415  (--help must be quick)

        received = asyncio.run(_until_told(server, listening))
    if received == signal.SIGTERM:
        raise SystemExit(EXIT_TERMINATED)


def _check(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.guidance) and args.guidance >= 0):
        raise UsageError(f"--guidance is {args.guidance}, expected a number from 0 on")
    for option, value in (("--max-message-mib", args.max_message_mib), ("--hung-after-s", args.hung_after_s)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{option} is {value}, expected a number above 0")
    if args.max_clients < 1:
        raise UsageError(f"--max-clients is {args.max_clients}, expected 1 or more")


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that has its port but doesn't listen yet: a taken port is found before the policy is loaded."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise _taken(host, port, error) from None
    return bound


def _open(bound: socket.socket) -> None:
    try:
        bound.listen()
    except OSError as error:  # two may have bound it while neither listened
        host, port = bound.getsockname()[:2]
        raise _taken(host, port, error) from None


def _taken(host: str, port: int, error: Exception) -> UsageError:
    return UsageError(f"can't listen on {host} port {port}: {error}; choose another --port")


def _server(args: argparse.Namespace) -> PolicyServer:
    """Load the policy and warm it up."""
    from robolift import manifest  # noqa: PLC0415  (--help must not import JAX or a web server)
    from robolift.schema import Kind  # noqa: PLC0415

    policy = manifest.expect(manifest.load(args.checkpoint), Kind.POLICY, name="checkpoint")
    try:
        from robolift.policy.server.app import Limits, PolicyServer  # noqa: PLC0415
        from robolift.policy.server.prompt_rule import PromptLabel  # noqa: PLC0415
        from robolift.policy.server.served import ServedPolicy  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the policy server is not installed: {error}\n  mend: pip install 'robolift[jax,serve]'"
        ) from error
    served = ServedPolicy.load(policy, label=PromptLabel(args.prompt_label), guidance=args.guidance)
    served.warm_up()
    limits = Limits(
        max_message_bytes=int(args.max_message_mib * 2**20),
        max_clients=args.max_clients,
        hung_after_s=args.hung_after_s,
    )
    return PolicyServer(served, limits=limits)


async def _until_told(server: PolicyServer, listening: socket.socket) -> signal.Signals:
    """Serve until SIGTERM or Ctrl-C and return which it was."""
    import asyncio  # noqa: PLC0415

    stop = asyncio.Event()
    received: list[signal.Signals] = []

    def told(number: signal.Signals) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told, number)
    await server.run(listening, stop)
    return received[0]

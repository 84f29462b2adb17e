"""Run benchmarks, print what they gave beside what they must reach, and write RESULTS.md and results.json."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from benchmarks import results
from benchmarks.harness import load, modules
from benchmarks.measure import measure


def main() -> int:
    """Return 0 if every goal that could be measured is met and nothing got worse without a reason, else 1."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="which files, labels for bench_labels.py; all by default")
    parser.add_argument("--rounds", type=int, help="how often each way runs (default: what the benchmark says)")
    parser.add_argument("--because", default="", help="why something may be more than 20 %% worse than committed")
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    args = parser.parse_args()
    written, complaints = results.read(), []
    for module in modules(args.names):
        try:
            doc, benchmarks = load(module)
        except ImportError as error:
            complaints.append(f"{module}: {error}")
            continue
        for benchmark in benchmarks:
            number = args.rounds or benchmark.rounds
            publish = not args.dry_run and number >= benchmark.rounds
            measured = measure(module, benchmark, rounds=number, publish=publish)
            complaints += measured.failures
            if not measured.rounds and benchmark.name in written:
                continue
            found = results.entry(doc, benchmark, measured.rounds, os.getloadavg()[0])
            worse = results.losses(benchmark, found, written.get(benchmark.name))
            if worse and args.because:
                found["because"] = f"{args.because} ({'; '.join(worse)})"
            print(results.render({benchmark.name: found}).removeprefix(results.HEAD), flush=True)
            complaints += [f"{benchmark.name}: {g['name']} is missed" for g in found["goals"] if not g.get("met", True)]
            complaints += results.missing(benchmark, found)
            if worse and not args.because:
                complaints += [f"{line}; say why with BECAUSE=..., or mend it" for line in worse]
            elif not args.dry_run and not measured.failures:
                written[benchmark.name] = found
                results.write(written)
    for line in complaints:
        print(line, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    # As an interrupt does: what is running has a group of its own and would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise SystemExit(main())

"""`python -m tests.simulation --seeds 100`: so many worlds, two at a time, and what they showed."""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tests.simulation.mutants import MUTANTS_BY_NAME, apply
from tests.simulation.run import Result, simulate
from tests.simulation.shrink import shortest

CORPUS = Path(__file__).parent / "corpus.json"  # seeds that once failed, and why


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have another order in each process without it
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    seeds: Iterable[int] = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.corpus:
        seeds = json.loads(CORPUS.read_text())
    began, totals = time.perf_counter(), _Totals()
    work = partial(simulate, only=frozenset() if arguments.calm else None)
    _change(arguments.mutant)
    for result in _results(work, map(int, seeds), arguments.jobs, arguments.mutant):
        totals.add(result)
        if arguments.each or result.violations:
            print(_line(result), flush=True)
        if arguments.history:
            print("\n".join(result.history))
        if result.violations and arguments.shrink:
            print(_told(shortest(result, arguments.shrink)), flush=True)
    print(totals.text(time.perf_counter() - began))
    return 1 if totals.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--corpus", action="store_true", help="the seeds that once failed, instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--calm", action="store_true", help="no fault at all")
    parser.add_argument("--each", action="store_true", help="a line for each seed, not only for those that fail")
    parser.add_argument(
        "--shrink", type=float, default=60, help="seconds to find the shortest history of a failing seed"
    )
    parser.add_argument(
        "--mutant", default="", choices=["", *MUTANTS_BY_NAME], metavar="NAME", help="with this fault in the code"
    )
    parser.add_argument("--history", action="store_true", help="what happened, line by line")
    return parser.parse_args()


def _change(mutant: str) -> None:
    if mutant:
        apply(MUTANTS_BY_NAME[mutant])


def _results(work: Callable[[int], Result], seeds: Iterable[int], jobs: int, mutant: str) -> Iterator[Result]:
    if jobs <= 1:
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _change, [mutant]) as pool:
        yield from pool.imap_unordered(work, seeds)


def _line(result: Result) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    lines = [
        f"seed {result.seed}: {outcomes}; {len(result.faults)} faults, {result.virtual_seconds / 3600:.1f} h, "
        f"settled after {result.settled_after / 60:.0f} min, {result.cpu_seconds:.1f} s, {result.digest}"
    ]
    lines += [f"  {at:9.0f} s  {rule}: {text}" for at, rule, text in result.violations[:5]]
    return "\n".join(lines)


def _told(result: Result) -> str:
    """The shortest history: its faults, and what happened."""
    lines = [f"The shortest history of seed {result.seed} that still fails has {len(result.faults)} faults:"]
    return "\n".join([*lines, *(f"  {line}" for line in result.history[-80:])])


class _Totals:
    def __init__(self) -> None:
        self.seeds = self.submissions = 0
        self.virtual_seconds = 0.0
        self.slowest = 0.0
        self.cpu_seconds = 0.0  # without imports
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.failed: list[int] = []

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.submissions += result.submissions
        self.virtual_seconds += result.virtual_seconds
        self.slowest = max(self.slowest, result.settled_after)
        self.cpu_seconds += result.cpu_seconds
        self.outcomes += result.outcomes
        self.kinds += result.kinds
        if result.violations:
            self.failed.append(result.seed)

    def text(self, wall: float) -> str:
        rows = [
            ("seeds", f"{self.seeds}"),
            (
                "submissions",
                f"{self.submissions} ({', '.join(f'{n} {name}' for name, n in sorted(self.outcomes.items()))})",
            ),
            ("faults", f"{self.kinds.total():,}"),
            *((f"  {kind}", f"{count:,}") for kind, count in self.kinds.most_common()),
            ("virtual time", f"{self.virtual_seconds / 86400:.1f} days"),
            ("longest until all had its end", f"{self.slowest / 60:.0f} min after the last fault"),
            (
                "CPU time",
                f"{self.cpu_seconds:.0f} s, {self.kinds.total() / max(self.cpu_seconds, 1e-9):.0f} faults a second",
            ),
            ("wall time", f"{wall:.0f} s"),
            ("seeds that fail", f"{len(self.failed)} {sorted(self.failed) if self.failed else ''}".strip()),
        ]
        return "\n".join(f"{name:<30} {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())

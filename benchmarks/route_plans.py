"""How long a submission takes and what its GPUs do meanwhile: routes fixed, by length, pulled, and the bound.

    python -m benchmarks.route_plans DURATIONS.csv [--pairs 4] [--start-seconds 15]

Simulates published runs (columns source, route_id, route_length_m, duration_system_s) of at least an hour on a number
of pairs, with the planning code that supervisors and flows use. What a route takes is never known before it has been
driven: expected are what the route's length says, what this run has shown so far, and what earlier runs in the file
took on the same routes. The bound is max(sum of all routes / pairs, longest route).

benchmarks.route_plans_local drives some of them with real processes.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from statistics import median

from evaluation.pulling.choice import START_SECONDS
from evaluation.pulling.durations import RouteSize, expected_seconds
from evaluation.pulling.pool import RoutePool
from evaluation.shards import RoutePlan, plan_routes

LEAST_SECONDS = 3600.0
Key = tuple[str, int]  # a route in several runs: its id and its length in metres


@dataclass(frozen=True)
class Run:
    """A published run: its routes in the file's order, by position."""

    source: str
    keys: tuple[Key, ...]
    metres: tuple[float, ...]
    seconds: tuple[float, ...]

    def bound(self, pairs: int) -> float:
        return max(sum(self.seconds) / pairs, max(self.seconds))


@dataclass
class Driven:
    """One run on so many pairs. Times in seconds."""

    ends: list[float]  # of each pair
    starts: int
    driving: float  # all routes, once
    start_seconds: float
    order: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def makespan(self) -> float:
        return max(self.ends)

    @property
    def waste_freed(self) -> float:
        """Of the GPU-seconds until each pair's end, the part that is no driving."""
        return 1 - self.driving / sum(self.ends)

    @property
    def waste_held(self) -> float:
        """The same where all GPUs are held until the last pair's end."""
        return 1 - self.driving / (len(self.ends) * self.makespan)


def read_runs(path: Path) -> list[Run]:
    """Every run of the file, in its order; repetitions of a route are routes of their own."""
    rows: dict[str, list[tuple[Key, float, float]]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            metres, seconds = float(row["route_length_m"]), max(0.0, float(row["duration_system_s"]))
            rows[row["source"]].append(((row["route_id"].split("_rep")[0], round(metres)), metres, seconds))
    return [Run(source, *map(tuple, zip(*each, strict=True))) for source, each in rows.items()]  # type: ignore[arg-type]


def long_runs(runs: Sequence[Run]) -> list[Run]:
    """Those of at least an hour."""
    return [run for run in runs if sum(run.seconds) >= LEAST_SECONDS]


def expectations(run: Run, earlier: Sequence[Run]) -> dict[int, float]:
    """What the flow expects of a run before anything of it is driven."""
    sizes = {position: RouteSize(metres) for position, metres in enumerate(run.metres)}
    return expected_seconds(sizes, (_by_route(run, other) for other in earlier))


def _by_route(run: Run, other: Run) -> dict[int, float]:
    took = dict(zip(other.keys, other.seconds, strict=True))
    return {position: took[key] for position, key in enumerate(run.keys) if key in took}


def fixed(run: Run, pairs: int, start_seconds: float) -> Driven:
    """Each pair has its contiguous part, as the flow plans it."""
    plan = plan_routes(range(len(run.seconds)), pairs, 1, RoutePlan.FIXED)
    parts = [shard.routes for shard in plan.shards]
    return _in_parts(run, parts, start_seconds)


def by_length(run: Run, pairs: int, start_seconds: float) -> Driven:
    """A fixed part for each pair, even by length: the longest route first, to the pair with the least so far."""
    parts: list[tuple[int, ...]] = [()] * min(pairs, len(run.seconds))
    for route in sorted(range(len(run.metres)), key=lambda each: -run.metres[each]):
        least = min(range(len(parts)), key=lambda pair: sum(run.metres[each] for each in parts[pair]))
        parts[least] = (*parts[least], route)
    return _in_parts(run, parts, start_seconds)


def _in_parts(run: Run, parts: Sequence[tuple[int, ...]], start_seconds: float) -> Driven:
    ends = [start_seconds + sum(run.seconds[route] for route in part) for part in parts]
    return Driven(ends, len(parts), sum(run.seconds), start_seconds, list(parts))


def pulled(run: Run, pairs: int, start_seconds: float, expected: Mapping[int, float]) -> Driven:
    """Pairs take the next routes from the pool, which knows what was shown up to then."""
    count = min(pairs, len(run.seconds))
    pool = RoutePool(expected, claims=((),) * count)
    shown: list[dict[int, float]] = [{} for _ in range(count)]
    driven = Driven([0.0] * count, 0, sum(run.seconds), start_seconds)
    free = [(0.0, pair) for pair in range(count)]
    heapify(free)
    while free:
        now, pair = heappop(free)
        known = pool.claims[pair]
        pool = pool.take(pair, known, 1, shown[pair], start_seconds)
        taken = pool.claims[pair][len(known) :]
        if not taken:
            driven.ends[pair] = now
            continue
        driven.starts += 1
        shown[pair] |= {route: run.seconds[route] for route in taken}
        heappush(free, (now + start_seconds + sum(run.seconds[route] for route in taken), pair))
    driven.order = list(pool.claims)
    return driven


SIZES = (3, 12), (13, 30), (31, 60), (61, 250)
PLANS = ("fixed", "by length", "pulled, by length alone", "pulled", "pulled, true durations known")


def plans(run: Run, earlier: Sequence[Run], pairs: int, start_seconds: float) -> dict[str, Driven]:
    """The run by each plan."""
    true = dict(enumerate(max(1.0, seconds) for seconds in run.seconds))
    return dict(
        zip(
            PLANS,
            (
                fixed(run, pairs, start_seconds),
                by_length(run, pairs, start_seconds),
                pulled(run, pairs, start_seconds, expectations(run, ())),
                pulled(run, pairs, start_seconds, expectations(run, earlier)),
                pulled(run, pairs, start_seconds, true),
            ),
            strict=True,
        )
    )


def table(runs: Sequence[Run], pairs: int, start_seconds: float) -> Iterator[str]:
    """A line for each plan over all runs of at least an hour."""
    results: dict[str, list[tuple[float, Driven]]] = defaultdict(list)
    for position, run in enumerate(runs):
        if sum(run.seconds) >= LEAST_SECONDS:
            for plan, driven in plans(run, runs[:position], pairs, start_seconds).items():
                results[plan].append((run.bound(pairs), driven))
    count = len(results["fixed"])
    yield f"{count} runs of at least an hour, {pairs} pairs, {start_seconds:g} s a start"
    yield ""
    yield "| plan | makespan / bound, median (worst) | above 1.25 | GPU time not driving: freed (worst run) | held |"
    yield "|---|---|---|---|---|"
    for plan, each in results.items():
        ratios = [driven.makespan / bound for bound, driven in each]
        yield (
            f"| {plan} | {median(ratios):.3f} ({max(ratios):.2f}) | {sum(ratio > 1.25 for ratio in ratios)} "
            f"| {_percent(each, lambda d: sum(d.ends)):.1f} % ({max(d.waste_freed for _, d in each) * 100:.1f} %) "
            f"| {_percent(each, lambda d: len(d.ends) * d.makespan):.1f} % |"
        )
    yield f"| bound | 1 (1) | 0 | 0 % | {_bound_waste(runs, pairs):.1f} % |"


def by_size(runs: Sequence[Run], pairs: int, start_seconds: float) -> Iterator[str]:
    """The same ratios by how many routes a run has: few long ones do not divide evenly."""
    yield "| routes of a run | runs | " + " | ".join(PLANS) + " |"
    yield "|---" * (len(PLANS) + 2) + "|"
    for least, most in SIZES:
        ratios: dict[str, list[float]] = defaultdict(list)
        for position, run in enumerate(runs):
            if sum(run.seconds) >= LEAST_SECONDS and least <= len(run.seconds) <= most:
                for plan, driven in plans(run, runs[:position], pairs, start_seconds).items():
                    ratios[plan].append(driven.makespan / run.bound(pairs))
        cells = " | ".join(f"{median(each):.3f} ({max(each):.2f})" for each in ratios.values())
        yield f"| {least} to {most} | {len(ratios[PLANS[0]])} | {cells} |"


def _percent(each: Sequence[tuple[float, Driven]], gpu_seconds: Callable[[Driven], float]) -> float:
    return 100 * (1 - sum(driven.driving for _, driven in each) / sum(gpu_seconds(driven) for _, driven in each))


def _bound_waste(runs: Sequence[Run], pairs: int) -> float:
    long = long_runs(runs)
    held = sum(min(pairs, len(run.seconds)) * run.bound(pairs) for run in long)
    return 100 * max(0.0, 1 - sum(sum(run.seconds) for run in long) / held)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.route_plans")
    parser.add_argument("durations", type=Path)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--start-seconds", type=float, default=START_SECONDS)
    given = parser.parse_args()
    runs = read_runs(given.durations)
    print("\n".join(table(runs, given.pairs, given.start_seconds)), end="\n\n")
    print("\n".join(by_size(runs, given.pairs, given.start_seconds)))


if __name__ == "__main__":
    main()

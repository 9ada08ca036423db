"""Which metric should a fleet of workers be scaled by? A seeded discrete-event simulation of a burst of jobs.

    python benchmarks/backlog_scaling.py [docs/backlog-scaling.svg]

Prints a table, and draws it where a file is named. Every policy gets the same jobs. The fleet follows its metric as
AWS's target tracking does: it grows after three minutes above the target, in proportion, and shrinks after fifteen
minutes below nine tenths of it (docs.aws.amazon.com/autoscaling/application/userguide/target-tracking).
"""

import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from compute_client.backlog import Backlog

MINUTE = 60.0


@dataclass(frozen=True)
class World:
    """Times in seconds."""

    jobs: int = 300
    burst_at: float = 10 * MINUTE
    burst_seconds: float = 5 * MINUTE
    mean_job: float = 8 * MINUTE
    spread: float = 0.8  # of the logarithm: some jobs take five times the mean
    fewest: int = 1
    most: int = 30
    start: float = 75  # until a new task has its image, and its worker asks for work
    target: float = 10 * MINUTE  # of work for each worker
    redelivery: float = 2 * MINUTE  # until the job of a task that was stopped is on the queue again
    high_points: int = 3
    low_points: int = 15
    shrink_pause: float = 5 * MINUTE
    horizon: float = 8 * 60 * MINUTE
    seed: int = 7


@dataclass(frozen=True)
class Policy:
    name: str
    metric: Callable[[Backlog], float]
    protected: bool  # a task that works is not stopped
    bridged: bool = True  # the bridge receives every message at once, instead of each worker its next one


def both(backlog: Backlog) -> float:
    """What `leaderboard compute backlog` publishes."""
    return backlog.seconds_per_worker


def visible_only(backlog: Backlog) -> float:
    return backlog.visible * backlog.job_seconds / max(backlog.workers, 1)


POLICIES = (
    Policy("backlog: visible + in flight, protected", both, protected=True),
    Policy("backlog: visible + in flight, unprotected", both, protected=False),
    Policy("visible only, workers pull, unprotected", visible_only, protected=False, bridged=False),
    Policy("visible only, workers pull, protected", visible_only, protected=True, bridged=False),
    Policy("visible only behind the bridge", visible_only, protected=True),
)


@dataclass
class Outcome:
    policy: Policy
    waits: list[float] = field(default_factory=list)  # of each job, from its arrival to its end
    ends: float = 0  # when the last job ended
    worker_seconds: float = 0
    killed: int = 0
    lost_seconds: float = 0  # of work that had to be done again
    history: list[tuple[float, int, int]] = field(default_factory=list)  # (time, jobs not ended, workers), a minute

    def percentile(self, share: float) -> float:
        """Of the jobs' waits, in seconds; infinite where so many never ended."""
        ordered = sorted(self.waits)
        return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1] if ordered else math.inf


@dataclass
class Worker:
    ready_at: float
    job: int | None = None
    since: float = 0
    run: int = 0  # distinguishes the end of this job from that of one that was stopped


class Fleet:
    """One policy's queue and workers. Events are (time, number, what happens)."""

    def __init__(self, world: World, policy: Policy) -> None:
        self._world = world
        self._random = random.Random(world.seed)  # noqa: S311 - a simulation
        self._policy = policy
        self.outcome = Outcome(policy)
        self._arrivals, self._lengths = self._make_jobs()
        self._queue: deque[int] = deque()
        self._returning = 0  # jobs of stopped tasks that are not visible yet
        self._workers = [Worker(0.0) for _ in range(world.fewest)]
        self._ended = 0
        self._high = self._low = 0
        self._shrunk_at = -math.inf
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()

    def run(self) -> Outcome:
        for job, arrival in enumerate(self._arrivals):
            self._at(arrival, lambda now, job=job: self._arrive(now, job))
        self._at(MINUTE, self._look)
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            if now > self._world.horizon:
                break
            happens(now)
        return self.outcome

    def _make_jobs(self) -> tuple[list[float], list[float]]:
        world, jobs = self._world, range(self._world.jobs)
        middle = math.log(world.mean_job) - world.spread**2 / 2
        arrivals = sorted(world.burst_at + self._random.random() * world.burst_seconds for _ in jobs)
        return arrivals, [self._random.lognormvariate(middle, world.spread) for _ in jobs]

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happens))

    def _arrive(self, now: float, job: int) -> None:
        self._queue.append(job)
        self._assign(now)

    def _assign(self, now: float) -> None:
        for worker in self._workers:
            if not self._queue:
                return
            if worker.job is None and worker.ready_at <= now:
                worker.job, worker.since = self._queue.popleft(), now
                worker.run += 1
                end = now + self._lengths[worker.job]
                self._at(end, lambda at, worker=worker, run=worker.run: self._end(at, worker, run))

    def _end(self, now: float, worker: Worker, run: int) -> None:
        if worker.run != run or worker.job is None:
            return  # its task was stopped
        self.outcome.waits.append(now - self._arrivals[worker.job])
        self.outcome.ends = now
        self._ended += 1
        worker.job = None
        self._assign(now)

    def _look(self, now: float) -> None:
        """Once a minute: measure, scale, note."""
        ready = sum(worker.ready_at <= now for worker in self._workers)
        held = sum(worker.job is not None for worker in self._workers) + self._returning
        waiting = len(self._queue)
        visible, in_flight = (0, waiting + held) if self._policy.bridged else (waiting, held)
        self._scale(now, self._policy.metric(Backlog(visible, in_flight, ready, self._world.mean_job)), ready)
        self.outcome.worker_seconds += MINUTE * len(self._workers)
        arrived = sum(arrival <= now for arrival in self._arrivals)
        self.outcome.history.append((now, arrived - self._ended, len(self._workers)))
        if self._ended < self._world.jobs or len(self._workers) > self._world.fewest:
            self._at(now + MINUTE, self._look)

    def _scale(self, now: float, metric: float, ready: int) -> None:
        world = self._world
        self._high = self._high + 1 if metric > world.target else 0
        self._low = self._low + 1 if metric < 0.9 * world.target else 0
        wanted = min(max(math.ceil(max(ready, 1) * metric / world.target), world.fewest), world.most)
        if self._high >= world.high_points and wanted > len(self._workers):
            self._grow(now, wanted)
        rested = now >= self._shrunk_at + world.shrink_pause
        if self._low >= world.low_points and rested and wanted < len(self._workers):
            self._shrink(now, wanted)
            self._shrunk_at = now

    def _grow(self, now: float, wanted: int) -> None:
        begins = now + self._world.start
        self._workers += [Worker(begins) for _ in range(wanted - len(self._workers))]
        self._at(begins, self._assign)

    def _shrink(self, now: float, wanted: int) -> None:
        """ECS stops idle tasks or busy ones alike, unless they are protected."""
        candidates = [worker for worker in self._workers if worker.job is None or not self._policy.protected]
        self._random.shuffle(candidates)
        for worker in candidates[: len(self._workers) - wanted]:
            self._workers.remove(worker)
            if worker.job is not None:
                self._kill(now, worker, worker.job)

    def _kill(self, now: float, worker: Worker, job: int) -> None:
        self.outcome.killed += 1
        self.outcome.lost_seconds += now - worker.since
        worker.job, self._returning = None, self._returning + 1

        def comes_back(at: float) -> None:
            self._returning -= 1
            self._arrive(at, job)

        self._at(now + self._world.redelivery, comes_back)


def simulate(world: World, policy: Policy) -> Outcome:
    return Fleet(world, policy).run()


def table(world: World, outcomes: list[Outcome]) -> str:
    """Figures of each policy, and its ratios to the first one's."""
    best = outcomes[0]
    lines = [f"{'policy':43} {'drained':>9} {'p95 wait':>9} {'worker-h':>9} {'killed':>7} {'redone':>8}   ratios"]
    for each in outcomes:
        drained, wait = each.ends - world.burst_at, each.percentile(0.95)
        done = len(each.waits) == world.jobs
        ratios = (drained / (best.ends - world.burst_at), wait / best.percentile(0.95))
        cost = each.worker_seconds / best.worker_seconds
        lines.append(
            f"{each.policy.name:43} {drained / MINUTE:7.0f} m {wait / MINUTE:7.0f} m {each.worker_seconds / 3600:9.1f} "
            f"{each.killed:7d} {each.lost_seconds / MINUTE:6.0f} m   "
            + (
                f"time x{ratios[0]:.2f}, wait x{ratios[1]:.2f}, cost x{cost:.2f}"
                if done
                else f"only {len(each.waits)} of {world.jobs} jobs ended within {world.horizon / 3600:.0f} h"
            )
        )
    return "\n".join(lines)


def draw(world: World, outcomes: list[Outcome], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg" if file.suffix == ".svg" else "agg")
    matplotlib.rcParams.update({"svg.hashsalt": "backlog", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 1, sharex=True, figsize=(7, 4.6), layout="constrained")
    for number, each in enumerate(outcomes):
        style = {"linewidth": 1.2 if number else 3.0}  # the first one would be under others
        minutes = [now / MINUTE for now, _, _ in each.history]
        for panel, column in zip(panels, (1, 2), strict=True):
            panel.plot(minutes, [row[column] for row in each.history], label=each.policy.name, **style)
    limits: Any = (0, max(each.ends for each in outcomes if len(each.waits) == world.jobs) / MINUTE + 45)
    panels[0].set(ylabel="jobs not ended", xlim=limits, title=f"{world.jobs} jobs of {world.mean_job / MINUTE:.0f} min")
    panels[1].set(ylabel="workers", xlabel="minutes")
    panels[0].legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main(file: str | None = None) -> None:
    world = World()
    outcomes = [simulate(world, policy) for policy in POLICIES]
    print(table(world, outcomes))
    if file:
        draw(world, outcomes, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])

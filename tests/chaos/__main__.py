"""`python -m tests.chaos --seed 1 --submissions 40 --minutes 10`: the exit code is 0 if nothing is lost or doubled."""

import contextlib
import signal
import sys
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable

import requests

from cli.embedded_stack import interrupted_by_signals
from embedded.challenge import PHASES, TEAMS
from embedded.stack import running_stack
from evaluation.errors import EvaluationError, ServiceUnavailable
from tests.chaos.evidence import gather
from tests.chaos.harness import FOLDER, Harness, chaos_settings
from tests.chaos.havoc import Havoc
from tests.chaos.plan import Arrival, Incident, Plan, draw
from tests.chaos.verdict import Evidence, Verdict, judge

AROUND_SECONDS = 75.0  # for the stack's start and stop and the verdict
TICK_SECONDS = 0.25
LOOK_SECONDS = 5.0
QUIET_SECONDS = 10.0  # all has ended: nothing may happen any more
SERVER_SECONDS = 30.0  # to wait for Prefect's server, in the end
LATE_SECONDS = 45.0  # an incident that finds no target for so long is given up

Say = Callable[[str], None]


class Drill:
    """One run: the plan's arrivals and incidents in their time, then the wait for the last submission."""

    def __init__(self, harness: Harness, plan: Plan, deadline: float, say: Say) -> None:
        self.images: dict[int, str] = {}
        self.missed: list[Incident] = []
        self._site = harness
        self._arrivals = deque(plan.arrivals)
        self._incidents = list(plan.incidents)
        self._began = time.monotonic()
        self._deadline = deadline
        self._say = lambda line: say(f"{time.monotonic() - self._began:6.1f} s  {line}")
        self.havoc = Havoc(harness, self.images, self._say)

    def run(self) -> Evidence:
        """Returns when all submissions have ended, or when the time is up."""
        looked, quiet_since = 0.0, 0.0
        while time.monotonic() < self._deadline:
            self.havoc.tend()
            self._send()
            self._strike()
            if not self._arrivals and not self._incidents and time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                quiet_since = (quiet_since or looked) if self._over() else 0.0
                if quiet_since and looked - quiet_since > QUIET_SECONDS:
                    break
            time.sleep(TICK_SECONDS)
        return self._gather()

    def _send(self) -> None:
        while self._arrivals and self._elapsed > self._arrivals[0].at and self.havoc.evalai_answers:
            arrival = self._arrivals[0]
            try:
                self.images[self._submit(arrival)] = arrival.image
            except EvaluationError as error:
                self._say(f"EvalAI does not take a submission now: {error}")
                return
            self._arrivals.popleft()

    def _submit(self, arrival: Arrival) -> int:
        return self._site.people.submit(self._site.stack.state.phase_pk(arrival.phase), arrival.image, arrival.team)

    def _strike(self) -> None:
        for incident in [incident for incident in self._incidents if self._elapsed > incident.at]:
            late = self._elapsed > incident.at + LATE_SECONDS
            if self.havoc.strike(incident):
                self._incidents.remove(incident)
            elif late:
                self._say(f"{incident.kind}: found no target")
                self.missed.append(incident)
                self._incidents.remove(incident)

    def _over(self) -> bool:
        try:
            verdict = judge(gather(self._site, self.images, self.havoc.hits))
        except requests.RequestException:
            return False
        waiting = [*verdict.lost, *verdict.orphans]
        if waiting:
            self._say(f"{len(verdict.lost)} still to end, {len(verdict.orphans)} to be cleared away: {waiting[0]}")
        return not waiting

    def _gather(self) -> Evidence:
        """Raises ServiceUnavailable where Prefect's server does not come back."""
        until = time.monotonic() + SERVER_SECONDS
        while True:
            self.havoc.tend()
            try:
                return gather(self._site, self.images, self.havoc.hits)
            except requests.RequestException as error:
                if time.monotonic() > until:
                    raise ServiceUnavailable("Prefect does not answer, so nothing can be judged", str(error)) from error
                time.sleep(1)

    @property
    def unplanned(self) -> list[str]:
        """Services that died by themselves."""
        return self._site.stack.supervisor.crashes

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def run(seed: int, submissions: int, minutes: float, say: Say) -> bool:
    """One drill; whether nothing was lost, doubled, left behind or unexplained."""
    began = time.monotonic()
    plan = draw(seed, submissions, minutes * 60 - AROUND_SECONDS, list(PHASES), TEAMS)
    say(f"seed {seed}: {len(plan.arrivals)} submissions, {len(plan.incidents)} incidents, {minutes:g} minutes at most")
    with running_stack(chaos_settings(), say) as stack:
        drill = Drill(Harness(stack), plan, began + minutes * 60 - AROUND_SECONDS / 3, say)
        evidence = drill.run()
        verdict = judge(evidence)
    seconds = time.monotonic() - began
    for line in table(seed, verdict, evidence, drill, seconds):
        say(line)
    return verdict.good and verdict.submissions == submissions


def table(seed: int, verdict: Verdict, evidence: Evidence, drill: Drill, seconds: float) -> list[str]:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(verdict.outcomes.items()))
    hits = [hit.kind for hit in evidence.hits]
    struck = ", ".join(f"{hits.count(kind)} {kind}" for kind in dict.fromkeys(sorted(hits)))
    recoveries = sorted(verdict.recoveries.items(), key=lambda item: -item[1])
    longest = ", ".join(f"{kind} {time_:.0f} s" for kind, time_ in recoveries) or "nothing was hit"
    again = f"{verdict.routes_again} of {verdict.routes}"
    again += f" ({verdict.routes_again_by_agents} of them by agents that crash or hang by themselves)"
    rows = {
        "submissions in": str(verdict.submissions),
        "outcomes": outcomes,
        "lost": str(len(verdict.lost)),
        "doubled": str(len(verdict.doubled)),
        "orphans": str(len(verdict.orphans)),
        "unexpected": str(len(verdict.unexpected)),
        "routes started twice": again,
        "routes recorded twice": str(verdict.recorded_again),
        "longest recovery": longest,
        "incidents": struck + (f"; {len(drill.missed)} found no target" if drill.missed else ""),
        "died by themselves": ", ".join(drill.unplanned) or "none",
        "seconds": f"{seconds:.0f}",
    }
    problems = [*verdict.lost, *verdict.doubled, *verdict.orphans, *verdict.unexpected]
    lines = ["", f"chaos, seed {seed}", *(f"  {name:22} {value}" for name, value in rows.items())]
    return [*lines, *(f"  ! {problem}" for problem in problems), *([f"  logs: {FOLDER / 'logs'}"] if problems else [])]


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.chaos", description="The embedded stack under fire.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--submissions", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=10, help="how long it may take in all")
    arguments = parser.parse_args()
    with interrupted_by_signals(), contextlib.suppress(KeyboardInterrupt):
        good = run(arguments.seed, arguments.submissions, arguments.minutes, lambda line: print(line, flush=True))
        return 0 if good else 1
    return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())

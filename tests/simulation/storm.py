"""What people do in a simulated world, and the faults that have a time of their own: outages, deaths, sleep, clocks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from evaluation.submission.model import CLOSED, SubmissionStatus
from tests.simulation.invariants import Invariants
from tests.simulation.machine import JUMPS, Machine
from tests.simulation.pair import CRASHING

if TYPE_CHECKING:
    from tests.simulation.world import World

SERVICES = ("dynamodb", "s3", "sqs", "evalai", "prefect", "kubernetes")
SLEEPS = (20.0, 60.0, 130.0, 200.0, 400.0, 1000.0)


@dataclass
class Storm:
    """`quiet_from` is when the last fault may strike, in seconds since the begin."""

    world: "World"
    invariants: Invariants
    quiet_from: float = field(init=False)
    submissions: int = field(init=False)
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(f"{self.world.seed} storm")
        self.submissions = self._random.randint(2, 6)
        self.quiet_from = self._random.uniform(1800, 5400)
        self.world.chance.quiet_from = self.quiet_from
        self.world.process_per_run = self._random.random() < 0.5
        self._people()
        self._plan()

    # People.

    def _people(self) -> None:
        cancels, crashes = self._random.random() < 0.5, self._random.random() < 0.3
        for _ in range(self.submissions):
            at = self._random.uniform(0, min(1500.0, self.quiet_from))
            image = CRASHING if crashes and self._random.random() < 0.3 else "demo/agent:steady"
            cancelled = cancels and self._random.random() < 0.4
            after = self._random.choice((1.0, 15.0, 60.0, 600.0, 1200.0))
            self.world.hub.after(at, self._submit, image, after * self._random.random() if cancelled else None)
        if self._random.random() < 0.6:
            for _ in range(4):
                self.world.hub.after(self._random.uniform(600, self.quiet_from), self._resume, self._random.random())
        if self._random.random() < 0.2:
            self.world.hub.after(self._random.uniform(60, self.quiet_from), self._stop_a_run, self._random.random())

    def _submit(self, image: str, cancel_after: float | None) -> None:
        pk = self.world.evalai.submit(image)
        self.invariants.images[pk] = image
        self.world.history.note(f"a team submits {pk}: {image}")
        if cancel_after is not None:
            self.world.hub.after(cancel_after, self._cancel, pk)

    def _cancel(self, pk: int) -> None:
        if self.world.evalai.status(pk) in CLOSED:
            return
        self.world.history.note(f"the team cancels {pk}")
        self.world.evalai.cancel(pk)
        self.invariants.cancelled(pk)

    def _resume(self, which: float) -> None:
        failed = [
            pk for pk in self.world.evalai.state.submissions if self.world.evalai.status(pk) is SubmissionStatus.FAILED
        ]
        if failed:
            pk = failed[int(which * len(failed))]
            self.world.history.note(f"a host resumes {pk}")
            self.world.evalai.resume(pk)

    def _stop_a_run(self, which: float) -> None:
        """An operator cancels a run in Prefect."""
        runs = self.world.running_runs()
        if runs:
            self.world.stop_run(runs[int(which * len(runs))])

    # Faults with a time.

    def _plan(self) -> None:
        random, end = self._random, self.quiet_from
        for service in SERVICES:
            for number in range(random.choice((0, 0, 0, 1, 2, 4))):
                begin, lasts = random.uniform(0, end), random.choice((5.0, 20.0, 70.0, 200.0, 600.0, 1500.0))
                if self.world.chance.planned("outage", service, number):
                    self.world.calls.outages.setdefault(service, []).append((begin, min(begin + lasts, end)))
                    self.world.hub.at(begin, None, self.world.history.note, f"{service} is away for {lasts:.0f} s")
        kinds: dict[str, Callable[[Machine, float], None]] = {
            "machine dies": lambda machine, _: machine.kill(),
            "machine sleeps": self._sleep,
            "clock jumps": self._jump,
        }
        for kind, act in kinds.items():
            for number in range(random.choice((0, 0, 2, 5, 10, 20))):
                at, which, drawn = random.uniform(0, end), random.random(), random.random()
                self.world.hub.at(at, None, self._strike, kind, number, which, drawn, act)

    def _strike(
        self, kind: str, number: int, which: float, drawn: float, act: Callable[[Machine, float], None]
    ) -> None:
        """Some machine of those that live: a pod is one of many, the others are hit as often as all pods together."""
        alive = [name for name, machine in self.world.machines.items() if not machine.dead]
        if kind != "machine dies":
            alive = [name for name in alive if " pod " not in name] or alive
        pods = [name for name in alive if " pod " in name]
        chosen = pods if pods and which < 0.4 else [name for name in alive if name not in pods]
        if chosen and self.world.chance.planned(kind, "any", number):
            name = chosen[int(drawn * len(chosen))]
            self.world.history.note(f"{name}: {kind}")
            act(self.world.machines[name], drawn * 1000 % 1)

    def _sleep(self, machine: Machine, drawn: float) -> None:
        machine.sleep(SLEEPS[int(drawn * len(SLEEPS))])

    def _jump(self, machine: Machine, drawn: float) -> None:
        machine.ahead += JUMPS[int(drawn * len(JUMPS))]

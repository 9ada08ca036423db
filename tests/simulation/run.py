"""One seed: the world, the storm, the quiet time after it, and what was found."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.chance import Fault, by_kind
from tests.simulation.invariants import Invariants
from tests.simulation.storm import Storm
from tests.simulation.world import running_world

SETTLE_SECONDS = 6 * 3600.0  # after the last fault everything has its end within this time
EVERY_SECONDS = 300.0


@dataclass
class Result:
    """What one seed showed. `faults` are those that struck."""

    seed: int
    digest: str
    submissions: int
    outcomes: Counter[str]
    faults: list[Fault]
    violations: list[tuple[float, str, str]]
    virtual_seconds: float
    settled_after: float  # seconds after the last fault
    cpu_seconds: float
    steps: int
    history: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> Counter[str]:
        return by_kind(self.faults)

    @property
    def rules(self) -> list[str]:
        """The rules that were broken, each once."""
        return list(dict.fromkeys(rule for _, rule, _ in self.violations))


def simulate(seed: int, only: frozenset[Fault] | None = None, stop_at_once: bool = False) -> Result:
    """Run the seed to its end; with `stop_at_once` only to the first violation."""
    began = time.process_time()
    with running_world(seed, only) as world:
        invariants = Invariants(world)
        storm = Storm(world, invariants)

        def is_over() -> bool:
            return stop_at_once and bool(invariants.violations)

        world.hub.run(storm.quiet_from, is_over)
        invariants.quiet = True
        deadline = storm.quiet_from + SETTLE_SECONDS
        while world.hub.now < deadline and not is_over() and invariants.unsettled():
            world.hub.run(min(world.hub.now + EVERY_SECONDS, deadline), is_over)
        if not is_over():
            invariants.check_end()
        states = world.evalai.state.submissions
        result = Result(
            seed=seed,
            digest=world.history.digest,
            submissions=len(states),
            outcomes=Counter(row.status.value for row in states.values()),
            faults=world.chance.fired,
            violations=invariants.violations,
            virtual_seconds=world.hub.now,
            settled_after=world.hub.now - storm.quiet_from,
            cpu_seconds=time.process_time() - began,
            steps=world.hub.steps,
            history=world.history.lines,
        )
    return result

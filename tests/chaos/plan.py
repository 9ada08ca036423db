"""Which submissions are sent and which incidents happen, and when: drawn from the seed in advance. Pure."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from local_jobs.demo_images import BEHAVIOURS as EVERY_BEHAVIOUR
from local_jobs.demo_images import REPOSITORY

# Those that come to an end by themselves: a forged score is held until an operator decides.
BEHAVIOURS = tuple(behaviour for behaviour in EVERY_BEHAVIOUR if behaviour != "forged-score")
ORDINARY = ("steady", "steady", "fast")  # what most teams send
# Shares of the time. What comes after the last incident is left for recovery.
ARRIVALS_END = 0.30
INCIDENTS_BEGIN, INCIDENTS_END = 0.03, 0.50
RESUMES_BEGIN, RESUMES_END = 0.30, 0.55


class Kind(StrEnum):
    """What can happen. The first group is killed with signal 9."""

    FLOW_RUN = "flow run"
    WORKER = "worker"
    RECOVERY = "recovery worker"
    MACHINE = "workers' machine"  # both workers and all their flow runs at once
    BRIDGE = "bridge"
    SERVER = "Prefect server"
    POD = "shard's pod"
    SUPERVISOR = "shard's supervisor"
    SIMULATOR = "shard's simulator"
    AGENT = "shard's agent"

    OUTAGE = "EvalAI outage"
    DUPLICATE = "duplicate message"
    CANCEL = "cancel"
    RESUME = "resume"


SHARD_KINDS = frozenset({Kind.POD, Kind.SUPERVISOR, Kind.SIMULATOR, Kind.AGENT})
PART_KINDS = frozenset({Kind.WORKER, Kind.RECOVERY, Kind.MACHINE, Kind.BRIDGE, Kind.SERVER})
PER_FORTY = {
    Kind.FLOW_RUN: 8,
    Kind.WORKER: 2,
    Kind.RECOVERY: 2,
    Kind.MACHINE: 1,
    Kind.BRIDGE: 2,
    Kind.SERVER: 2,
    Kind.POD: 4,
    Kind.SUPERVISOR: 3,
    Kind.SIMULATOR: 3,
    Kind.AGENT: 3,
    Kind.OUTAGE: 3,
    Kind.DUPLICATE: 6,
    Kind.CANCEL: 3,
    Kind.RESUME: 4,
}
OUTAGES = ("broken", "lost", "slow")
LONGEST_OUTAGE = 12.0
LONGEST_ABSENCE = 5.0  # from a part's death to its restart


@dataclass(frozen=True)
class Arrival:
    """A submission. `at` is in seconds from the moment when the stack is up."""

    at: float
    phase: str
    image: str
    team: str


@dataclass(frozen=True)
class Incident:
    """`choice` in [0, 1) picks the target among those that there are then; `seconds` is how long it lasts."""

    at: float
    kind: Kind
    choice: float
    seconds: float = 0.0
    how: str = ""


@dataclass(frozen=True)
class Plan:
    seed: int
    arrivals: tuple[Arrival, ...]
    incidents: tuple[Incident, ...]


def draw(seed: int, submissions: int, seconds: float, phases: Sequence[str], teams: Sequence[str]) -> Plan:
    """The same arguments give the same plan. Every behaviour of the catalogue is in it, if there are enough."""
    dice = random.Random(seed)  # noqa: S311 - no secret is drawn
    behaviours = _behaviours(dice, submissions)
    arrivals = [
        Arrival(
            dice.uniform(0, ARRIVALS_END) * seconds,
            dice.choice(phases),
            f"{REPOSITORY}:{behaviour}",
            dice.choice(teams),
        )
        for behaviour in behaviours
    ]
    incidents = [
        incident
        for kind, per_forty in PER_FORTY.items()
        for incident in _incidents(dice, kind, max(1, round(per_forty * submissions / 40)), seconds)
    ]
    return Plan(
        seed,
        tuple(sorted(arrivals, key=lambda arrival: arrival.at)),
        tuple(sorted(incidents, key=lambda incident: incident.at)),
    )


def _behaviours(dice: random.Random, count: int) -> list[str]:
    """Each one once, the misbehaving ones twice where there is room, the rest ordinary ones; in any order."""
    known = list(BEHAVIOURS)
    dice.shuffle(known)
    found = (known * 2)[: min(2 * len(known), max(1, count // 2))]
    found += dice.choices(ORDINARY, k=count - len(found))
    dice.shuffle(found)
    return found


def _incidents(dice: random.Random, kind: Kind, count: int, seconds: float) -> Iterator[Incident]:
    begin, end = (RESUMES_BEGIN, RESUMES_END) if kind is Kind.RESUME else (INCIDENTS_BEGIN, INCIDENTS_END)
    for _ in range(count):
        at, choice = dice.uniform(begin, end) * seconds, dice.random()
        if kind is Kind.OUTAGE:
            yield Incident(at, kind, choice, dice.uniform(LONGEST_OUTAGE / 3, LONGEST_OUTAGE), dice.choice(OUTAGES))
        elif kind in PART_KINDS:
            yield Incident(at, kind, choice, dice.uniform(0.5, LONGEST_ABSENCE))
        else:
            yield Incident(at, kind, choice)

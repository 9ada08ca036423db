"""Every fault of a run, decided by the seed: which kinds there are this time, how often, and where each one strikes.

A decision depends on the seed, the place and how often that place was asked, and on nothing else. So a fault can be
taken out of a history, and the others stay what they were: that is how a history is made shorter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

Fault = tuple[str, str, int]  # kind, place, the how manieth question there

# kind -> (the lowest and the highest rate of a seed where it is on, how many seeds of a hundred have it on)
ON_CALLS: Mapping[str, tuple[float, float, int]] = {
    "throttled": (0.02, 0.25, 65),  # the service asks to come later
    "broken": (0.02, 0.25, 65),  # 500, 502, 503
    "request lost": (0.005, 0.10, 60),  # it never arrived, and that is known only after the time-out
    "answer lost": (0.01, 0.20, 70),  # what was asked for happened
    "slow": (0.005, 0.10, 60),
    "dies before": (0.0001, 0.003, 50),  # the machine, right before the call
    "dies after": (0.0001, 0.003, 50),  # the machine, once the call has had its effect
    "sleeps before": (0.0001, 0.003, 50),
    "sleeps after": (0.0001, 0.003, 50),
}
OF_SERVERS: Mapping[str, tuple[float, float, int]] = {
    "delivered twice": (0.01, 0.3, 60),  # SQS
    "comes back deleted": (0.01, 0.2, 40),
    "event lost": (0.02, 0.5, 60),  # Prefect's
    "automation fires twice": (0.02, 0.5, 60),
    "run starts late": (0.02, 0.5, 60),
    "watch lost": (0.002, 0.05, 60),  # Kubernetes'
    "watch lags": (0.01, 0.3, 50),
    "pod refused": (0.05, 0.6, 60),
    "pod lost": (0.02, 0.3, 60),
    "pair breaks": (0.02, 0.2, 60),  # simulator or evaluator
    "clock is off": (0.05, 0.5, 50),  # the wall clock of a machine or process, from its start
    "clock drifts": (0.1, 0.6, 50),  # its monotonic clock
}


@dataclass
class Chance:
    """`only`: these faults and no other; None where the seed alone decides. After `quiet_from` nothing strikes."""

    seed: int
    only: frozenset[Fault] | None = None
    quiet_from: float = float("inf")
    fired: list[Fault] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    rates: dict[str, float] = field(init=False)
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(f"{self.seed} world")
        of_the_seed = Random(f"{self.seed} swarm")
        self.rates = {}
        for kind, (low, high, share) in (ON_CALLS | OF_SERVERS).items():
            on, exponent = of_the_seed.random() * 100 < share, of_the_seed.random()
            self.rates[kind] = low * (high / low) ** exponent if on else 0.0
        self._calls = [(kind, self.rates[kind]) for kind in ON_CALLS if self.rates[kind]]

    def of_call(self, place: str, now: float) -> str | None:
        """The fault that meets this call, if one does."""
        if now >= self.quiet_from:
            return None
        drawn, number = self._draw(place)
        for kind, rate in self._calls:
            if drawn < rate:
                return kind if self._strikes(kind, place, number) else None
            drawn -= rate
        return None

    def strikes(self, kind: str, place: str, now: float) -> bool:
        """Whether a fault of one kind happens here."""
        if now >= self.quiet_from:
            return False
        drawn, number = self._draw(f"{kind}: {place}")
        return drawn < self.rates[kind] and self._strikes(kind, place, number)

    def planned(self, kind: str, place: str, number: int) -> bool:
        """Whether a fault that the seed has set a time for is to happen; asked once for each."""
        return self._strikes(kind, place, number)

    def _draw(self, place: str) -> tuple[float, int]:
        number = self.asked[place] = self.asked[place] + 1
        digest = blake2b(f"{self.seed}/{place}/{number}".encode(), digest_size=7).digest()
        return int.from_bytes(digest) / 2**56, number

    def _strikes(self, kind: str, place: str, number: int) -> bool:
        fault = (kind, place, number)
        if self.only is not None and fault not in self.only:
            return False
        self.fired.append(fault)
        return True


def by_kind(faults: Iterable[Fault]) -> Counter[str]:
    return Counter(kind for kind, _, _ in faults)

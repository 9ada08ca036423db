"""The shortest history of a seed that still breaks the rule: faults are taken out for as long as it does."""

import time
from collections.abc import Sequence

from tests.simulation.chance import Fault
from tests.simulation.run import Result, simulate


def shortest(result: Result, seconds: float) -> Result:
    """A run of the same seed with as few of its faults as were found to suffice in that time (wall time).

    First no fault and one kind alone are tried, the rarest first, which often suffices and runs fast; then kinds are
    left out, then halves, quarters and so on (Zeller's ddmin), each run only to its first violation. The same rule has
    to be broken.
    """
    rule, deadline = result.rules[0], time.perf_counter() + seconds
    best = _of_one_kind(result, rule, deadline) or _still(result.seed, result.faults, rule) or result
    for kind, _ in best.kinds.most_common():
        if time.perf_counter() < deadline:
            best = _still(result.seed, [fault for fault in best.faults if fault[0] != kind], rule) or best
    parts = 2
    while len(best.faults) > 1 and parts <= len(best.faults) and time.perf_counter() < deadline:
        found = _without_a_part(best, parts, rule, deadline)
        if found is None:
            parts *= 2
        else:
            best, parts = found, max(2, parts - 1)
    return best


def _of_one_kind(result: Result, rule: str, deadline: float) -> Result | None:
    for chosen in ("", *(kind for kind, _ in reversed(result.kinds.most_common()))):
        if time.perf_counter() >= deadline:
            return None
        if found := _still(result.seed, [fault for fault in result.faults if fault[0] == chosen], rule):
            return found
    return None


def _without_a_part(best: Result, parts: int, rule: str, deadline: float) -> Result | None:
    size = -(-len(best.faults) // parts)
    for begin in range(0, len(best.faults), size):
        if time.perf_counter() >= deadline:
            return None
        if found := _still(best.seed, best.faults[:begin] + best.faults[begin + size :], rule):
            return found
    return None


def _still(seed: int, faults: Sequence[Fault], rule: str) -> Result | None:
    """The run with these faults, if it still breaks the rule; what came after that struck nobody."""
    found = simulate(seed, frozenset(faults), stop_at_once=True)
    return found if rule in found.rules else None

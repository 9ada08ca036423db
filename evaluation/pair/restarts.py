"""How often pairs were started again, and who was charged for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.pair.observations import Observations, SeenStart


@dataclass(frozen=True)
class Restart:
    """`ended` is the start after which the pair was started again, in the same attempt."""

    pair: int
    ended: SeenStart


def restarts(pair: int, seen: Observations) -> Iterator[Restart]:
    """Each restart of one pair, over all attempts; a resume is none, and neither is a start for the next routes."""
    for before, after in pairwise(seen.starts):
        if before.attempt == after.attempt and not before.drove_all:
            yield Restart(pair, before)


def count_restarts(all_restarts: Sequence[Restart]) -> list[str]:
    """One sentence for people; none where no pair was started again."""
    count = len(all_restarts)
    if not count:
        return []
    charged = sum(restart.ended.charged_to_agent for restart in all_restarts)
    times = "once" if count == 1 else f"{count} times"
    return [f"Pairs were started again {times}: {charged} charged to the agent, {count - charged} to the installation."]

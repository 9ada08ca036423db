"""How many routes one start takes, and which: a trade between the time of a start and an even end of all pairs."""

from collections.abc import Mapping, Sequence

START_SECONDS = 15.0  # of simulator and evaluator, until a pair has measured it
MOST_START_SHARE = 0.03  # of a start's time may be its beginning
TAIL_SHARE = 2  # no pair takes more than so many-th of its equal part of what is left


def next_routes(
    free: Sequence[int], expected: Mapping[int, float], pairs: int, start_seconds: float = START_SECONDS
) -> tuple[int, ...]:
    """The routes for one start of one of so many pairs: the longest first, others after it while they are short.

    `expected`: seconds by route. Together they last until the start is worth its time, or until they are half of the
    pair's equal part of what is left, so that no pair is still busy long after the others. None where none are free.
    """
    longest_first = sorted(free, key=lambda route: (-expected[route], route))
    left = sum(expected[route] for route in free)
    enough = min(start_seconds / MOST_START_SHARE, left / (TAIL_SHARE * pairs))
    taken: list[int] = []
    seconds = 0.0
    for route in longest_first:
        if not taken or seconds + expected[route] <= enough:
            taken.append(route)
            seconds += expected[route]
    return tuple(taken)

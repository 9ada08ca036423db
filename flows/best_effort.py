"""Decoration: what people like to see, and what no evaluation depends on.

Progress, partial results, names, tags, artifacts, summaries, log tails and polls for a cancellation go through
`best_effort`, so that whatever they raise is a warning in the run's log and the shards drive on.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger

from evaluation.errors import ControlFlow
from evaluation.text import storable

LONGEST_REASON = 500  # characters of a warning


@contextmanager
def best_effort(consequence: str) -> Iterator[None]:
    """Run the block; whatever it raises becomes the warning `<consequence>: <reason>`.

    Only ControlFlow passes, which is no failure: a confirmed cancellation, or a claim that another run has taken.
    """
    try:
        yield
    except ControlFlow:
        raise
    except Exception as error:  # noqa: BLE001 - that is what it is for
        get_run_logger().warning("%s: %s", consequence, describe(error))


def describe(error: Exception) -> str:
    """The error in one line that every log takes, even where it cannot be printed itself."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - somebody else's __str__
        text = ""
    return storable(text or type(error).__name__)[:LONGEST_REASON]

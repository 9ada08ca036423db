"""Routes that were given up and scored 0 without having been driven to an end: what they are, and what they cost."""

from collections.abc import Sequence

from evaluation.results.metrics import Record
from evaluation.results.records import SIMULATION_CRASHED

AGENT_CRASHED = "Agent crashed"


def is_quarantined(record: Record) -> bool:
    """Whether the simulator did not survive the route, and no try gave it a score."""
    return SIMULATION_CRASHED in record["status"] and not any(record["scores"].values())


def is_given_up(record: Record) -> bool:
    """Whether the agent crashed on the route until it was left, and no try gave it a score."""
    return AGENT_CRASHED in record["status"] and not any(record["scores"].values())


def points_lost(records: Sequence[Record], total_routes: int) -> list[str]:
    """A sentence for each kind of route that was given up, for readers of the score."""
    kinds = (
        ("Quarantined and scored 0, because the simulator crashed on them again and again", is_quarantined),
        ("Given up and scored 0, because the agent crashed on them again and again", is_given_up),
    )
    sentences = []
    for what, applies in kinds:
        names = [str(record["route_id"]) for record in records if applies(record)]
        if names:
            shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            most = 100 * len(names) / max(total_routes, 1)
            sentences.append(f"{what}: {shown} (up to {most:.3g} points of the driving score).")
    return sentences

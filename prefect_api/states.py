"""The final states that the flow itself gives to its runs: their names, and how to make them."""

from enum import StrEnum
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from evaluation.text import storable


class StateName(StrEnum):
    """Final states that the flow itself gives to its run; any other failure is one that it did not see coming."""

    DUPLICATE = "Duplicate"  # another run has the submission: a no-op
    REJECTED = "Rejected"  # the message is in the dead-letter queue
    POSTPONED = "Postponed"  # an outage before the claim: the message stays on the queue
    TAKEN_OVER = "TakenOver"  # another run has taken the claim from this one
    BLOCKED = "Blocked"  # an operator must act first; before the claim the message stays on the queue
    INTERRUPTED = "Interrupted"  # an outage after the claim: a takeover run continues
    SKIPPED = "Skipped"
    TAKEN_BACK = "TakenBack"
    AGENT_FAILED = "AgentFailed"
    INFRASTRUCTURE_FAILED = "InfrastructureFailed"
    UNDELIVERED = "Undelivered"


def completed_state(name: StateName | None, message: str) -> State[Any]:
    """`name` None is Prefect's own: Completed. The server refuses some texts, and the run would count as crashed."""
    return Completed(name=name or "Completed", message=storable(message))


def failed_state(name: StateName, message: str) -> State[Any]:
    return Failed(name=name, message=storable(message))


def cancelled_state(name: StateName, message: str) -> State[Any]:
    return Cancelled(name=name, message=storable(message))

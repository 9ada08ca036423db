"""The final states that the flows themselves give to their runs: their names, and how to make them."""

from enum import StrEnum
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from evaluation.text import storable

DRAINED = "Drained"  # of type CRASHED: the run's worker was told to stop, and nothing is wrong with the run


class StateName(StrEnum):
    """Final states that a flow gives to its own run; any other failure is one that the flow did not foresee."""

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
    HELD = "Held"  # its result does not fit what is known: an operator decides
    UNDELIVERED = "Undelivered"
    # Of the flow `compute` only, which also ends as Duplicate, TakenOver, Rejected or Postponed.
    COMPUTED = "Computed"
    FUNCTION_FAILED = "FunctionFailed"
    LEASED = "Leased"  # another run has the job
    DIED = "Died"  # the function's process did: another run calls it again


def completed_state(name: StateName | None, message: str) -> State[Any]:
    """`name` None is Prefect's own: Completed. The server refuses some texts, and the run would count as crashed."""
    return Completed(name=name or "Completed", message=storable(message))


def failed_state(name: StateName, message: str) -> State[Any]:
    return Failed(name=name, message=storable(message))


def cancelled_state(name: StateName, message: str) -> State[Any]:
    return Cancelled(name=name, message=storable(message))

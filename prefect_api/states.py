"""The names of the final states that the flow itself gives to its runs."""

from enum import StrEnum


class StateName(StrEnum):
    """Final states that the flow itself gives to its run; any other failure is one that it did not see coming."""

    DUPLICATE = "Duplicate"  # another run has the submission: a no-op
    REJECTED = "Rejected"  # the message is in the dead-letter queue
    POSTPONED = "Postponed"  # an outage before the claim: the message comes back
    TAKEN_OVER = "TakenOver"  # another run has taken the claim from this one
    BLOCKED = "Blocked"  # something is set up wrong: a host has to mend it, then a successor goes on
    INTERRUPTED = "Interrupted"  # an outage after the claim: a successor goes on
    SKIPPED = "Skipped"
    TAKEN_BACK = "TakenBack"
    AGENT_FAILED = "AgentFailed"
    INFRASTRUCTURE_FAILED = "InfrastructureFailed"
    UNDELIVERED = "Undelivered"

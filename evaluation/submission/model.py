"""The submission as EvalAI describes it, and the phase that names its cluster and track."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluation.errors import InvalidConfiguration


class SubmissionStatus(StrEnum):
    """EvalAI's own states. EvalAI guards none of the transitions: any write may overwrite any state."""

    SUBMITTED = "submitted"  # new, its message is on the queue
    SUBMITTING = "submitting"  # EvalAI is still storing the upload
    QUEUED = "queued"
    RUNNING = "running"
    RESUMING = "resuming"  # a host asked for a failed one to go on, same pk
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTIALLY_EVALUATED = "partially_evaluated"
    ARCHIVED = "archived"


# Each status is in one of these three. Its message is on the queue, or should be:
WAITING = frozenset({SubmissionStatus.SUBMITTED, SubmissionStatus.SUBMITTING, SubmissionStatus.RESUMING})
UNDER_WAY = frozenset({SubmissionStatus.QUEUED, SubmissionStatus.RUNNING, SubmissionStatus.PARTIALLY_EVALUATED})
# What EvalAI asks no evaluation for. Every other status may stand there when a message comes: EvalAI's own last write
# can come after the message (submitting), and what is shown as running may not have been evaluated at all.
CLOSED = frozenset(
    {
        SubmissionStatus.FINISHED,
        SubmissionStatus.FAILED,
        SubmissionStatus.CANCELLED,
        SubmissionStatus.ARCHIVED,
    }
)


class LeaderboardVersion(StrEnum):
    """Which evaluator a cluster runs; 2.0 and 2.1 write and aggregate results alike."""

    V1 = "1.0"
    V2 = "2.0"


@dataclass(frozen=True)
class Phase:
    """A phase of the challenge. The codename is `<cluster>-<track>`, e.g. `leaderboard-20-SENSORS`."""

    codename: str
    cluster: str
    track: str


def parse_phase(codename: str) -> Phase:
    """Split a codename at its last hyphen; raises InvalidConfiguration where either side is empty.

    Source: docs/aws.md, "Names".
    """
    cluster, hyphen, track = codename.rpartition("-")
    if not (hyphen and cluster and track):
        raise InvalidConfiguration(
            f"The phase codename {codename!r} does not split into cluster and track",
            "it has to look like leaderboard-20-SENSORS",
            "Correct the codename in EvalAI and in the secret evalai-tracks.",
        )
    return Phase(codename, cluster, track)


@dataclass(frozen=True)
class Submission:
    """A submission after enrichment: EvalAI's answer, the message and the phase in one value."""

    pk: int
    challenge_pk: int
    phase_pk: int
    phase: Phase
    team_pk: int
    team_name: str
    status: SubmissionStatus
    image: str | None
    submitted_at: datetime | None
    rerun_resumed_at: datetime | None
    gone: bool = False  # EvalAI no longer has a row of it: an administrator deleted it

"""The protocol of a simulator-agent pair: three parties on a shared volume, each writing in its own directory only.

    supervisor/start<n>    the pair may start for the n-th time; the checkpoint has been checked
    supervisor/subset<n>   where routes are pulled: the ROUTES_SUBSET of the n-th start, instead of the Job's
    supervisor/stop<n>     stop the n-th start now; the content is the reason (hang, silent, partner)
    supervisor/next<n>     the decision after the n-th start, kept so that a supervisor that restarts decides once
    supervisor/exit_code   the exit code with which simulator, agent and pod end
    simulator/ready<n>     the n-th simulator is warm and accepts connections; the content is its port
    simulator/exit<n>      the n-th simulator has ended: `died <code>` by itself, or `stopped`
    agent/exit<n>          the n-th evaluator has ended: `died <code>` by itself (0 included), `stopped`, or
                           `unready`: it was not started because its simulator did not get ready
    agent/checkpoint.json  what the evaluator writes; between two starts the supervisor may correct it

The simulator and agent scripts know only these files. Budgets, hangs, resumes and quarantine are decided by the
supervisor, whose directory the agent cannot write to. What the agent does to the files in its own directory (a folder
or a pipe in the place of an exit file, no exit file at all) is charged to the agent.
Source: docs/reference/step-function.md, "The pair's protocol".
"""

from collections.abc import Mapping
from dataclasses import field
from datetime import UTC
from enum import IntEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from evaluation.errors import Failure, Fault
from evaluation.routes import RouteRun
from evaluation.shards import ShardState


class PairExitCode(IntEnum):
    """How a pair ends, as the exit code of its processes. Shells and Kubernetes see these numbers."""

    FINISHED = 0
    AGENT_CRASHED = 10  # its budget of restarts is used up
    SENSORS_INVALID = 11  # permanent
    AGENT_SETUP_FAILED = 12  # permanent
    AGENT_HANGS = 13  # its budget of restarts is used up
    SIMULATOR_CRASHED = 20  # the infrastructure budget is used up
    SIMULATOR_NOT_READY = 21
    CHECKPOINT_UNUSABLE = 22
    PAIR_LOST = 23  # one of the parties does not answer the supervisor
    CANCELLED = 30
    MISCONFIGURED = 40  # an environment variable or a file of ours is missing


@dataclass(frozen=True)
class Counters:
    """What an attempt has used of its budgets; outlives the pod. A new attempt (a resume) starts at zero."""

    starts: int = 0
    agent_restarts: int = 0
    infrastructure_restarts: int = 0
    simulator_crashes: Mapping[int, int] = field(default_factory=dict)  # route -> crashes while it was driven
    quarantined: tuple[RouteRun, ...] = ()  # routes given up because the simulator dies on them
    evaluator_deaths: Mapping[int, int] = field(default_factory=dict)  # route -> deaths and hangs while it was driven
    given_up: tuple[RouteRun, ...] = ()  # routes given up because the evaluator dies on them


@dataclass(frozen=True)
class PairProgress:
    """What the pair is doing: progress.json in S3, for people, for the flow, and for the pod that replaces another."""

    attempt: int
    state: ShardState
    routes_done: int
    routes_total: int
    route: int | None  # the one being driven
    counters: Counters
    exit_code: PairExitCode | None
    detail: str  # one sentence
    updated_at: Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]

    def render(self) -> str:
        """The JSON text, one line."""
        return _PROGRESS.dump_json(self).decode()


_PROGRESS = TypeAdapter(PairProgress)


def parse_progress(data: bytes | str) -> PairProgress | None:
    """Read progress.json; None where it cannot be read: no result depends on it."""
    if len(data) > _MAX_PROGRESS:
        return None
    try:
        return _PROGRESS.validate_json(data)
    except (ValidationError, OverflowError):
        return None


_MAX_PROGRESS = 1024 * 1024  # bytes; a few hundred are usual
RESUME = "Resume the submission: driven routes are kept."
CORRECT_AGENT = "Correct the agent and submit again; the agent's log shows its last output."
# exit_code -> what happened, whose fault, what to do; the cause is the supervisor's detail
_FAILURES: Mapping[PairExitCode, tuple[str, Fault, str]] = {
    PairExitCode.AGENT_CRASHED: ("The agent crashed again and again", Fault.TEAM, CORRECT_AGENT),
    PairExitCode.SENSORS_INVALID: (
        "The agent's sensors are invalid",
        Fault.TEAM,
        "Compare the sensors with the track's allowed ones, correct the agent and submit again.",
    ),
    PairExitCode.AGENT_SETUP_FAILED: ("The agent could not be set up", Fault.TEAM, CORRECT_AGENT),
    PairExitCode.AGENT_HANGS: ("The agent hangs", Fault.TEAM, CORRECT_AGENT),
    PairExitCode.SIMULATOR_CRASHED: ("The simulator crashed again and again", Fault.INFRASTRUCTURE, RESUME),
    PairExitCode.SIMULATOR_NOT_READY: ("The simulator did not get ready", Fault.INFRASTRUCTURE, RESUME),
    PairExitCode.CHECKPOINT_UNUSABLE: (
        "The earlier checkpoint cannot be used",
        Fault.INFRASTRUCTURE,
        "Move the shard's checkpoint.json away in S3 and resume: the shard then drives all its routes anew.",
    ),
    PairExitCode.PAIR_LOST: ("A process of the pair was lost", Fault.INFRASTRUCTURE, RESUME),
    PairExitCode.CANCELLED: ("The pair was stopped from outside", Fault.INFRASTRUCTURE, RESUME),
    PairExitCode.MISCONFIGURED: (
        "The pair is configured wrongly",
        Fault.INFRASTRUCTURE,
        "Correct the settings named in the shard's log and resume the submission.",
    ),
}


def failure_of(exit_code: PairExitCode, detail: str = "") -> Failure:
    """What people read of a pair that did not finish. `detail` is the supervisor's; FINISHED is no failure."""
    summary, fault, remedy = _FAILURES[exit_code]
    return Failure(summary, detail, remedy, fault)


def failure_of_exit(code: int, detail: str = "") -> Failure:
    """The failure behind a pod's exit code; a code that is no PairExitCode means that the pod itself broke down."""
    if code in set(_FAILURES):
        return failure_of(PairExitCode(code), detail)
    cause = detail or f"it ended with code {code}, which is not an exit code of a pair"
    return Failure("The shard's pod failed", cause, RESUME, Fault.INFRASTRUCTURE)

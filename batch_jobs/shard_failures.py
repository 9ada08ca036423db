"""Why a shard's Batch job failed for good, and whose fault it was: pure.

All containers but the agent's run images of ours and are believed. The agent's is the team's: it may admit a fault,
never shift one. Every container of a task ends when the first one has, so one that was told to end proves nothing.
"""

import re

from batch_jobs.job_description import AGENT, EVALUATOR, INIT, SIMULATOR, SUPERVISOR, BatchJob, Container
from evaluation.errors import Failure, Fault
from evaluation.pair.protocol import PairExitCode, failure_of, failure_of_exit, failure_of_memory

_RESUME = "Resume the submission: driven routes are kept."
_FIX = "Correct the agent and submit again; the agent's log shows its last output."
_TRUSTED = (
    SUPERVISOR,
    SIMULATOR,
    INIT,
    EVALUATOR,
)  # the supervisor's code is its exit_code; the simulator's repeats it
_VERDICTS = frozenset(PairExitCode) - {PairExitCode.FINISHED}
_TEAM_VERDICTS = frozenset(exit_code for exit_code in _VERDICTS if failure_of(exit_code).fault is Fault.TEAM)
_TOLD_TO_END = frozenset({None, 0, int(PairExitCode.CANCELLED), 128 + 9, 128 + 15})  # by ECS, with TERM, then KILL

HOST_LOST = re.compile(r"Host EC2\b")  # as the job definition's evaluateOnExit has it
_TIMEOUT = re.compile(r"attempt duration exceeded timeout", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"OutOfMemory", re.IGNORECASE)
_NOT_STARTED = re.compile(
    r"Cannot(Pull|Start|Create|Inspect)\w*|ContainerRuntimeError|RepositoryAuthError|DockerTimeout"
)


def failure_of_job(job: BatchJob, deadline_seconds: float, supervisor: str = "") -> Failure:
    """The failure of a FAILED job; `supervisor` is its last words, where they could be read.

    The order of the questions is that of how surely each answer is known.
    """
    return (
        _by_batch(job, deadline_seconds)
        or _out_of_memory(job)
        or _by_pair_exit_code(job, supervisor)
        or _not_started(job)
        or _by_exit_code(job)
        or Failure("The shard's Batch job failed", job.reason, _RESUME, Fault.INFRASTRUCTURE)
    )


def _by_batch(job: BatchJob, deadline_seconds: float) -> Failure | None:
    """What Batch itself says: a deadline (nobody is charged: the supervisor detects hangs), or a lost machine."""
    if _TIMEOUT.search(job.reason):
        cause = f"it was ended after {deadline_seconds / 3600:.3g} hours"
        return Failure("The shard was not done in time", cause, _RESUME, Fault.INFRASTRUCTURE)
    if HOST_LOST.search(job.reason):
        cause = f"{len(job.losses) + 1} machines in a row, the last one: {job.reason}"
        return Failure("The shard's machine was lost again and again", cause, _RESUME, Fault.INFRASTRUCTURE)
    if job.ending:
        cause = job.reason or "Batch gives no reason"
        return Failure("Somebody ended the shard's Batch job", cause, _RESUME, Fault.INFRASTRUCTURE)
    return None


def _out_of_memory(job: BatchJob) -> Failure | None:
    killed = [each.name for each in job.containers.values() if _OUT_OF_MEMORY.search(each.reason)]
    ours = [name for name in killed if name != AGENT]
    return failure_of_memory(ours, bool(killed), "the job definition's stack")


def _by_pair_exit_code(job: BatchJob, supervisor: str) -> Failure | None:
    told = [job.containers[name] for name in _TRUSTED if name in job.containers]
    sure = next((each for each in told if each.exit_code in _VERDICTS - {PairExitCode.CANCELLED}), None)
    if sure is not None:
        return failure_of_exit(int(sure.exit_code or 0), supervisor or _detail(sure))
    agent = job.containers.get(AGENT, Container(AGENT))
    if agent.exit_code in _TEAM_VERDICTS:
        return failure_of_exit(int(agent.exit_code or 0), _detail(agent))
    return None


def _not_started(job: BatchJob) -> Failure | None:
    stuck = next((each for each in job.containers.values() if _NOT_STARTED.search(each.reason)), None)
    if stuck is None and not _NOT_STARTED.search(job.reason):
        return None
    name, why = (stuck.name, stuck.reason) if stuck else ("", job.reason)
    remedy = "Check the image's name and the execution role's right to pull it, then resume the submission."
    summary = f"The container {name} cannot be started" if name else "The shard's containers cannot be started"
    return Failure(summary, why, remedy, Fault.INFRASTRUCTURE)


def _by_exit_code(job: BatchJob) -> Failure | None:
    """Who ended by itself: one of ours, else the agent; if all were told to, the reason lies outside."""
    strays = [each for each in job.containers.values() if each.exit_code not in _TOLD_TO_END]
    ours = next((each for each in strays if each.name != AGENT), None)
    if ours is not None:
        return failure_of_exit(ours.exit_code or 0, _detail(ours))
    if strays:
        agent = strays[0]
        cause = f"it ended with code {agent.exit_code}, on its own" + (f": {agent.reason}" if agent.reason else "")
        return Failure("The agent's container ended by itself", cause, _FIX, Fault.TEAM)
    stopped = [each for each in job.containers.values() if each.exit_code == PairExitCode.CANCELLED]
    return failure_of_exit(PairExitCode.CANCELLED, job.reason or _detail(stopped[0])) if stopped else None


def _detail(container: Container) -> str:
    return container.reason or f"container {container.name} ended with code {container.exit_code}"

"""Why a shard's Job failed for good, and whose fault it was, read from the Job and its pods.

Simulator and agent end with the supervisor's exit code. All containers but the agent's run images of ours and are
believed. The agent's is the team's: it may admit a fault, never shift one.
"""

import re
from collections.abc import Sequence

from evaluation.errors import Failure, Fault
from evaluation.pair.protocol import PairExitCode, failure_of, failure_of_exit, failure_of_memory
from k8s_jobs.pod_status import (
    AGENT,
    EVALUATOR,
    PREPARE,
    SIMULATOR,
    SUPERVISOR,
    Container,
    Json,
    by_age,
    containers,
    phase,
    true_condition,
    words,
)

_RESUME = "Resume the submission: driven routes are kept."
_FIX = "Correct the agent and submit again; the agent's log shows its last output."
_TRUSTED = (SIMULATOR, SUPERVISOR, PREPARE, EVALUATOR)
_VERDICTS = frozenset(PairExitCode) - {PairExitCode.FINISHED}
_TEAM_VERDICTS = frozenset(exit_code for exit_code in _VERDICTS if failure_of(exit_code).fault is Fault.TEAM)
_LOST_WITH_ITS_NODE = "ContainerStatusUnknown"
_NOT_STARTED = frozenset({"ContainerCannotRun", "StartError", "CreateContainerError"})
# The kubelet's words when a limit of the pod's own is passed; a node short of disk says something else.
_AGENTS_DISK = re.compile(r'Container agent exceeded its local ephemeral|EmptyDir volume "(pair-agent|shm)" exceeds')
_BY_POLICY = re.compile(r"Container (\S+) for pod \S+ failed with exit code ([0-9]+)")


def failure_of_job(job: Json, pods: Sequence[Json]) -> Failure:
    """The failure of a Job with a Failed or FailureTarget condition. `pods` may be gone: then the condition's words."""
    end = true_condition(job, "Failed", "FailureTarget")
    reason, message = (end.reason, end.message) if end else ("", "")
    if reason == "DeadlineExceeded":
        return _deadline(job)
    failed = [pod for pod in by_age(pods) if phase(pod) == "Failed"]
    told = _BY_POLICY.search(message)
    if told:  # names the container that the policy's rule is about
        failed = [pod for pod in failed if _exit_code(pod, told[1]) == int(told[2])] or failed
    if failed:
        return failure_of_pod(failed[-1])
    if told and (told[1] in _TRUSTED or int(told[2]) in _TEAM_VERDICTS):
        return failure_of_exit(int(told[2]), message)
    cause = f"{reason}: {message}" if message else reason
    return Failure("The shard's Job failed", cause, _RESUME, Fault.INFRASTRUCTURE)


def failure_of_pod(pod: Json) -> Failure:
    """Why one pod failed; the order of the questions is that of how surely each answer is known."""
    found = containers(pod)
    return (
        _taken_away(pod)
        or _out_of_memory(found)
        or _by_pair_exit_code(found)
        or _not_started(found)
        or _by_exit_code(found)
        or Failure("The shard's pod broke down", _status_words(pod), _RESUME, Fault.INFRASTRUCTURE)
    )


def disruption(pod: Json) -> str:
    """What took the pod away from outside (eviction, lost node, preemption, shutdown), in its words; else ""."""
    target = true_condition(pod, "DisruptionTarget")
    if target:
        return target.message or target.reason or "disruption"
    if any(each.reason == _LOST_WITH_ITS_NODE for each in containers(pod).values()):
        return "its node lost track of it"
    # A pod that fails without its containers' having ended was ended by its node: UnexpectedAdmissionError,
    # OutOfnvidia.com/gpu, NodeShutdown, Terminated, NodeLost, Evicted.
    return _status_words(pod) if (pod.get("status") or {}).get("reason") else ""


def _taken_away(pod: Json) -> Failure | None:
    status = pod.get("status") or {}
    message = str(status.get("message") or "")
    if status.get("reason") == "Evicted" and _AGENTS_DISK.search(message):
        return Failure("The agent wrote more to its disk than it may", words(message), _FIX, Fault.TEAM)
    why = disruption(pod)
    return Failure("The shard's machine took its pod away", why, _RESUME, Fault.INFRASTRUCTURE) if why else None


def _out_of_memory(found: dict[str, Container]) -> Failure | None:
    killed = [each.name for each in found.values() if each.reason == "OOMKilled"]
    ours = [name for name in killed if name in _TRUSTED]
    return failure_of_memory(ours, bool(killed), "the Job's template")


def _by_pair_exit_code(found: dict[str, Container]) -> Failure | None:
    told = [found[name] for name in _TRUSTED if name in found and found[name].exit_code in _VERDICTS]
    agent = found.get(AGENT, Container(AGENT))
    sure = [each for each in told if each.exit_code != PairExitCode.CANCELLED]
    if (
        sure
        and sure[0].exit_code == PairExitCode.PAIR_LOST
        and agent.exit_code not in (None, 0, PairExitCode.PAIR_LOST)
    ):
        return _not_started(found) or _ended_by_itself(agent)
    if sure:
        return failure_of_exit(int(sure[0].exit_code or 0), _detail(sure[0]))
    if agent.exit_code in _TEAM_VERDICTS:
        return failure_of_exit(int(agent.exit_code or 0), _detail(agent))
    return (
        failure_of_exit(PairExitCode.CANCELLED, _detail(told[0])) if told and agent.exit_code in (None, 0, 30) else None
    )


def _not_started(found: dict[str, Container]) -> Failure | None:
    stuck = next((each for each in found.values() if each.reason in _NOT_STARTED), None)
    if stuck is None:
        return None
    if stuck.name == AGENT and "nvidia" not in stuck.message.lower():
        return Failure("The agent's container cannot be started", stuck.message, _FIX, Fault.TEAM)
    summary = f"The container {stuck.name} cannot be started"
    return Failure(summary, stuck.message, "Correct the image or the node, then resume.", Fault.INFRASTRUCTURE)


def _by_exit_code(found: dict[str, Container]) -> Failure | None:
    failed = [each for each in found.values() if each.exit_code]
    ours = next((each for each in failed if each.name != AGENT), None)
    if ours is not None:
        return failure_of_exit(ours.exit_code or 0, _detail(ours))
    return _ended_by_itself(failed[0]) if failed else None


def _ended_by_itself(agent: Container) -> Failure:
    cause = f"it ended with code {agent.exit_code}, on its own" + (f": {agent.message}" if agent.message else "")
    return Failure("The agent's container ended by itself", cause, _FIX, Fault.TEAM)


def _detail(container: Container) -> str:
    return container.message or f"container {container.name} ended with code {container.exit_code}"


def _exit_code(pod: Json, name: str) -> int | None:
    container = containers(pod).get(name)
    return container.exit_code if container else None


def _deadline(job: Json) -> Failure:
    """Nobody is charged, as in local_jobs: hangs are the supervisor's to judge, and restarts take time as well."""
    hours = float((job.get("spec") or {}).get("activeDeadlineSeconds") or 0) / 3600
    cause = f"it was ended after {hours:.3g} hours"
    return Failure("The shard was not done in time", cause, _RESUME, Fault.INFRASTRUCTURE)


def _status_words(pod: Json) -> str:
    status = pod.get("status") or {}
    return words(": ".join(str(part) for part in (status.get("reason"), status.get("message")) if part))

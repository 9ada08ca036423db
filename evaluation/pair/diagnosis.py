"""Why an ended pod of a pair failed and who is charged: one diagnosis for every backend that runs containers. Pure.

A backend reads its platform's answer into a `ContainerEnd` for each container; what the ends mean together is decided
here. All containers but the agent's run images of ours and are believed. The agent's is the team's: it may admit a
fault, never shift one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.errors import Failure, Fault
from evaluation.pair.protocol import CORRECT_AGENT, RESUME, PairExitCode, failure_of, failure_of_exit

SUPERVISOR, SIMULATOR, AGENT = "supervisor", "simulator", "agent"  # containers of every backend
_EXIT_CODES = frozenset(PairExitCode) - {PairExitCode.FINISHED}
TEAM_EXIT_CODES = frozenset(code for code in _EXIT_CODES if failure_of(code).fault is Fault.TEAM)
_STOPPED = frozenset({int(PairExitCode.CANCELLED), 128 + 9, 128 + 15})  # TERM, then KILL
_LONGEST_QUOTE = 300  # characters of what others say, in a sentence of ours


class StartFailure(StrEnum):
    """Why a container never ran."""

    IMAGE = "image"  # it cannot be pulled
    CONTAINER = "container"  # it cannot be created or started


@dataclass(frozen=True)
class ContainerEnd:
    """How one container ended. `exit_code` is None where it has not ended, or never ran."""

    name: str
    exit_code: int | None = None
    message: str = ""  # the platform's about the end
    out_of_memory: bool = False  # killed at its own limit
    start_failure: StartFailure | None = None


@dataclass(frozen=True)
class PodEnd:
    """The containers of one ended pod (Kubernetes) or task (ECS), in the order of their start.

    `stops_together`: the platform stops all containers when the first one has ended, so that the end of one that was
    stopped proves nothing. `limits_in` says where an operator finds the memory limits of our containers.
    """

    containers: Sequence[ContainerEnd]
    limits_in: str
    stops_together: bool = False
    reason: str = ""  # the platform's message about the pod as a whole

    @property
    def ours(self) -> list[ContainerEnd]:
        """Believed first: the supervisor, whose exit code is the pair's, and the simulator, which repeats it."""
        rank = {SUPERVISOR: 0, SIMULATOR: 1}
        return sorted((each for each in self.containers if each.name != AGENT), key=lambda end: rank.get(end.name, 2))

    @property
    def agent(self) -> ContainerEnd:
        return next((each for each in self.containers if each.name == AGENT), ContainerEnd(AGENT))

    def by_itself(self, end: ContainerEnd) -> bool:
        """Whether the container failed without having been stopped."""
        return bool(end.exit_code) and not (self.stops_together and end.exit_code in _STOPPED)


def failure_of_pod(pod: PodEnd) -> Failure | None:
    """The failure behind the containers' ends, None where they explain nothing.

    The order of the questions is that of how surely each answer is known.
    """
    return _out_of_memory(pod) or _by_pair_exit_code(pod) or _not_started(pod) or _by_exit_code(pod)


def failure_to_start(end: ContainerEnd) -> Failure:
    """The failure behind a container that never ran; the agent's is the team's unless the node could not start it.

    A name that is empty stands for the pod as a whole.
    """
    which = f"The container {end.name}" if end.name else "A container of the shard"
    if end.start_failure is StartFailure.CONTAINER and end.name == AGENT and "nvidia" not in end.message.lower():
        return Failure("The agent's container cannot be started", end.message, CORRECT_AGENT, Fault.TEAM)
    if end.start_failure is StartFailure.IMAGE:
        remedy = "Check the image's name and the right to pull it (the node's or the execution role), then resume."
    else:
        remedy = "Correct the image or the node, then resume the submission."
    return infrastructure_failure(f"{which} cannot be started", end.message, remedy)


def infrastructure_failure(summary: str, cause: str, remedy: str = RESUME) -> Failure:
    return Failure(summary, cause, remedy, Fault.INFRASTRUCTURE)


def deadline_failure(seconds: float) -> Failure:
    """Neither party is at fault: hangs are the supervisor's to detect, and restarts take time as well."""
    return infrastructure_failure("The shard was not done in time", f"it was ended after {seconds / 3600:.3g} hours")


def quoted(text: object) -> str:
    """Somebody else's text as part of a sentence: one line, 300 characters at most, no full stop."""
    line = " ".join(str(text or "").split())
    return (line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + "…").rstrip(".")


def _out_of_memory(pod: PodEnd) -> Failure | None:
    killed = [each.name for each in pod.ours if each.out_of_memory]
    if killed:
        remedy = f"Give the container more memory in {pod.limits_in}, then resume the submission."
        return infrastructure_failure("A container of ours ran out of memory", ", ".join(killed), remedy)
    if pod.agent.out_of_memory:
        remedy = "Make the agent use less memory and submit again."
        return Failure("The agent ran out of memory", "its container was ended at its limit", remedy, Fault.TEAM)
    return None


def _by_pair_exit_code(pod: PodEnd) -> Failure | None:
    """What the supervisor decided, else what the agent admits. CANCELLED decides nothing: TERM came from outside."""
    decided = next((each for each in pod.ours if each.exit_code in _EXIT_CODES - {PairExitCode.CANCELLED}), None)
    if decided is None:
        admitted = pod.agent.exit_code in TEAM_EXIT_CODES
        return failure_of_exit(int(pod.agent.exit_code or 0), _cause(pod.agent)) if admitted else None
    if decided.exit_code == PairExitCode.PAIR_LOST and _agent_left(pod):
        return _not_started(pod) or _ended_by_itself(pod.agent)
    return failure_of_exit(int(decided.exit_code or 0), _cause(decided))


def _agent_left(pod: PodEnd) -> bool:
    """Whether the party that was lost is the agent's container, which ended before the supervisor noticed."""
    return not pod.stops_together and bool(pod.agent.exit_code) and pod.agent.exit_code != PairExitCode.PAIR_LOST


def _not_started(pod: PodEnd) -> Failure | None:
    stuck = next((each for each in pod.containers if each.start_failure), None)
    return failure_to_start(stuck) if stuck else None


def _by_exit_code(pod: PodEnd) -> Failure | None:
    """Who failed by itself: one of ours, else the agent; if all were stopped, the reason is outside."""
    ours = next((each for each in pod.ours if pod.by_itself(each)), None)
    if ours is not None:
        return failure_of_exit(ours.exit_code or 0, _cause(ours))
    if pod.by_itself(pod.agent):
        return _ended_by_itself(pod.agent)
    stopped = next((each for each in pod.containers if each.exit_code == PairExitCode.CANCELLED), None)
    return failure_of_exit(PairExitCode.CANCELLED, pod.reason or _cause(stopped)) if stopped else None


def _ended_by_itself(agent: ContainerEnd) -> Failure:
    cause = f"it ended with code {agent.exit_code}, on its own" + (f": {agent.message}" if agent.message else "")
    return Failure("The agent's container ended by itself", cause, CORRECT_AGENT, Fault.TEAM)


def _cause(end: ContainerEnd) -> str:
    return end.message or f"container {end.name} ended with code {end.exit_code}"

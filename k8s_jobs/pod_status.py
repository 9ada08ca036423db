"""What a pod's JSON says, as values: its containers, its conditions, when what happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

# The containers of templates/shard-job.yaml
EVALUATOR, PREPARE, SUPERVISOR, SIMULATOR, AGENT = "evaluator", "private-contents", "supervisor", "simulator", "agent"
INIT = (EVALUATOR, PREPARE)
LONGEST_WORDS = 300  # characters of what others say, in a sentence of ours


@dataclass(frozen=True)
class Container:
    """`exit_code` is set once it has ended; `reason` and `message` belong to its waiting or its end."""

    name: str
    waiting: bool = False
    running: bool = False
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Condition:
    status: bool
    reason: str
    message: str
    since: datetime | None


def time_of(text: object) -> datetime | None:
    """Kubernetes' RFC 3339 times, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) and text else None


def words(text: object) -> str:
    """Somebody else's text as part of a sentence: one line, not too long, no full stop."""
    line = " ".join(str(text or "").split())
    return (line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 1] + "…").rstrip(".")


def containers(pod: Json) -> dict[str, Container]:
    """All containers that the node has spoken of, init and sidecar included, in the order of their start."""
    status = pod.get("status") or {}
    found = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {each["name"]: _container(each) for each in found}


def _container(status: Json) -> Container:
    state = status.get("state") or {}
    waiting, running, ended = state.get("waiting"), state.get("running"), state.get("terminated")
    said = ended or waiting or {}
    return Container(
        name=status["name"],
        waiting=waiting is not None or not state,
        running=running is not None,
        exit_code=int(ended.get("exitCode", 0)) if ended is not None else None,
        reason=said.get("reason") or "",
        message=words(said.get("message")),
        started_at=time_of((running or ended or {}).get("startedAt")),
        finished_at=time_of((ended or {}).get("finishedAt")),
    )


def condition(thing: Json, kind: str) -> Condition | None:
    """The Job's or pod's condition of that type, whatever its status."""
    for each in (thing.get("status") or {}).get("conditions") or ():
        if each.get("type") == kind:
            since = time_of(each.get("lastTransitionTime"))
            return Condition(each.get("status") == "True", each.get("reason") or "", words(each.get("message")), since)
    return None


def true_condition(thing: Json, *kinds: str) -> Condition | None:
    """The first of these conditions that holds."""
    found = (condition(thing, kind) for kind in kinds)
    return next((each for each in found if each and each.status), None)


def created(thing: Json) -> datetime | None:
    return time_of(thing["metadata"].get("creationTimestamp"))


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_over(pod: Json) -> bool:
    """It has ended, or has been told to and does not count any longer."""
    return phase(pod) in ("Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))


def by_age(pods: Sequence[Json]) -> list[Json]:
    """Newest last. Creation times are whole seconds: of two equal ones the living one is newer."""
    return sorted(pods, key=lambda pod: (created(pod) or datetime.min.replace(tzinfo=UTC), not is_over(pod)))

"""What a pod's JSON says, as values: its containers, its conditions, when what happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from evaluation.pair.diagnosis import AGENT, SIMULATOR, SUPERVISOR, quoted
from evaluation.submission.image import repository_digest

Json = dict[str, Any]

# The containers of templates/shard-job.yaml, in the order of their start
EVALUATOR, PREPARE = "evaluator", "private-contents"
INIT = (EVALUATOR, PREPARE)
OURS = (*INIT, SUPERVISOR, SIMULATOR)
CONTAINERS = (*OURS, AGENT)


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
    image_digest: str = ""  # of the image that the node pulled


@dataclass(frozen=True)
class Condition:
    status: bool
    reason: str
    message: str
    since: datetime | None


def time_of(text: object) -> datetime | None:
    """Kubernetes' RFC 3339 times, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) and text else None


def containers(pod: Json) -> dict[str, Container]:
    """All containers that the node has reported, init and sidecar included, in the order of their start."""
    status = status_of(pod)
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
        message=quoted(said.get("message")),
        started_at=time_of((running or ended or {}).get("startedAt")),
        finished_at=time_of((ended or {}).get("finishedAt")),
        image_digest=repository_digest(str(status.get("imageID") or "")),
    )


def condition(thing: Json, kind: str) -> Condition | None:
    """The Job's or pod's condition of that type, whatever its status."""
    for each in status_of(thing).get("conditions") or ():
        if each.get("type") == kind:
            since = time_of(each.get("lastTransitionTime"))
            return Condition(each.get("status") == "True", each.get("reason") or "", quoted(each.get("message")), since)
    return None


def true_condition(thing: Json, *kinds: str) -> Condition | None:
    """The first of these conditions that holds."""
    found = (condition(thing, kind) for kind in kinds)
    return next((each for each in found if each and each.status), None)


def status_of(thing: Json) -> Json:
    return thing.get("status") or {}


def status_words(pod: Json) -> str:
    """Reason and message of the pod's own status."""
    status = status_of(pod)
    return quoted(": ".join(str(part) for part in (status.get("reason"), status.get("message")) if part))


def node_of(pod: Json) -> str:
    """Empty while it is not scheduled."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


def created(thing: Json) -> datetime | None:
    return time_of(thing["metadata"].get("creationTimestamp"))


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def phase(pod: Json) -> str:
    return str(status_of(pod).get("phase") or "Pending")


def is_over(pod: Json) -> bool:
    """It has ended, or is being deleted and does not count any longer."""
    return phase(pod) in ("Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))


def by_age(pods: Sequence[Json]) -> list[Json]:
    """Newest last. Creation times are whole seconds: of two equal ones the living one is newer."""
    return sorted(pods, key=lambda pod: (created(pod) or datetime.min.replace(tzinfo=UTC), not is_over(pod)))

"""Pods that a node refused to admit: they never ran, count against no budget, and are replaced elsewhere. Pure.

The kubelet fails such a pod (UnexpectedAdmissionError: no healthy GPU) without a DisruptionTarget condition. So the Job
controller counts it against backoffLimit, and the scheduler prefers the node for the next pod, since it is empty. A
Job's template is immutable: to avoid a node, a new Job has to take the old one's place. What the old one knew of
refusals, budget and deadline goes on with it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.errors import Failure
from evaluation.pair.diagnosis import infrastructure_failure
from evaluation.pair.shard_limits import lasts
from k8s_jobs.pod_status import (
    Json,
    by_age,
    containers,
    created,
    is_over,
    node_of,
    phase,
    status_of,
    status_words,
    time_of,
    true_condition,
)

REFUSED_BY = "leaderboard/refused-by"  # annotation of a Job: {node: pods of the Jobs before it}, in JSON
DEADLINE = "leaderboard/deadline-seconds"  # annotation of a Job that took another's place: the whole deadline

# Reasons of the kubelet's admission handlers; OutOf<resource> besides. Source: pkg/kubelet/lifecycle, pkg/kubelet/cm.
_REASONS = frozenset(
    {
        "InvalidNodeInfo",
        "NodeAffinity",
        "NodeName",
        "NodePorts",
        "NodeShutdown",
        "TaintToleration",
        "TopologyAffinityError",
        "UnexpectedAdmissionError",
        "UnexpectedPredicateFailureType",
        "UnknownReason",
    }
)
_LEAST_DEADLINE = 1  # second; a Job may not have less
_Counts = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class RefusalLimits:
    """A node that refused is avoided where another has room; from `exclude_after` pods on it is excluded.

    A restarted kubelet refuses until its device plugin is back, so the pause grows with every refused pod.
    """

    pods: int = 12  # of one shard; then it has failed
    exclude_after: int = 3  # pods that one node refused
    pause_seconds: float = 15.0  # times the refused pods before the last one


def was_refused(pod: Json) -> bool:
    """Whether the pod failed because its node did not admit it."""
    reason = str(status_of(pod).get("reason") or "")
    rejected = reason in _REASONS or reason.startswith("OutOf")
    return phase(pod) == "Failed" and rejected and not true_condition(pod, "DisruptionTarget")


def refusals(job: Json, pods: Sequence[Json]) -> Counter[str]:
    """How many of the shard's pods each node has refused, earlier Jobs of the shard included."""
    earlier = Counter(_earlier(job))
    earlier.update(node_of(pod) for pod in pods if was_refused(pod))
    return earlier


def counted_failures(job: Json, pods: Sequence[Json]) -> int:
    """The pods that count against the infrastructure budget: the Job controller's number without refused ones."""
    return max(0, (status_of(job).get("failed") or 0) - sum(map(was_refused, pods)))


def deadline_seconds(job: Json) -> float:
    """The shard's deadline, of which a Job that took another one's place has a part."""
    whole = (job["metadata"].get("annotations") or {}).get(DEADLINE)
    return float(whole or (job.get("spec") or {}).get("activeDeadlineSeconds") or 0)


def to_be_replaced(job: Json, pods: Sequence[Json], now: datetime, limits: RefusalLimits) -> bool:
    """Whether it is time for a new Job: the last pod was refused, and none was admitted since."""
    if not gave_up_by_refusals(job, pods) and (_ended(job) or _admitted(job, pods)):
        return False
    newest = by_age([pod for pod in pods if was_refused(pod)])[-1:]
    total = refusals(job, pods).total()
    return bool(newest) and total < limits.pods and _pause_is_over(newest[0], total, now, limits)


def gave_up_by_refusals(job: Json, pods: Sequence[Json]) -> bool:
    """Whether the Job controller ended the Job although its budget is not used up but for refused pods."""
    end = true_condition(job, "Failed", "FailureTarget")
    allowed = (job.get("spec") or {}).get("backoffLimit") or 0
    exceeded = end is not None and end.reason == "BackoffLimitExceeded"
    return exceeded and any(map(was_refused, pods)) and counted_failures(job, pods) <= allowed


def failure_of_refusals(job: Json, pods: Sequence[Json], limits: RefusalLimits) -> Failure | None:
    """The failure of a shard whose pods were refused too often."""
    nodes = refusals(job, pods)
    last = by_age([pod for pod in pods if was_refused(pod)])[-1:]
    if not last or nodes.total() < limits.pods or _admitted(job, pods):
        return None
    cause = f"{nodes.total()} pods, by {', '.join(sorted(nodes))}; the last one: {status_words(last[0])}"
    remedy = "Check the GPUs of these nodes (kubectl describe node), drain or replace them, then resume the submission."
    return infrastructure_failure("Nodes refused the shard's pods before they started", cause, remedy)


def replacement(manifest: Json, job: Json, pods: Sequence[Json], now: datetime, limits: RefusalLimits) -> Json:
    """`manifest`, the shard's own, changed to take the place of `job`: what is left of its budget and its deadline."""
    nodes, spec = refusals(job, pods), manifest["spec"]
    manifest["metadata"]["annotations"] |= {
        REFUSED_BY: _Counts.dump_json(dict(sorted(nodes.items()))).decode(),
        DEADLINE: f"{deadline_seconds(job):.0f}",
    }
    spec["backoffLimit"] = max(0, job["spec"].get("backoffLimit", 0) - counted_failures(job, pods))
    spec["activeDeadlineSeconds"] = max(_LEAST_DEADLINE, int(job["spec"]["activeDeadlineSeconds"] - _age(job, now)))
    pod = spec["template"]["spec"]
    pod["affinity"] = _avoiding(pod.get("affinity") or {}, nodes, limits)
    return manifest


def _avoiding(affinity: dict[str, Any], nodes: Counter[str], limits: RefusalLimits) -> dict[str, Any]:
    """The affinity, to other nodes: by name in a field, since a node's label may differ from its name."""
    fields = {name: {"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted(nodes) if name}
    excluded = [field for name, field in fields.items() if nodes[name] >= limits.exclude_after]
    node = dict(affinity.get("nodeAffinity") or {})
    if excluded:
        required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {"nodeSelectorTerms": [{}]}
        terms = [
            term | {"matchFields": [*term.get("matchFields", []), *excluded]} for term in required["nodeSelectorTerms"]
        ]
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if fields:
        preferred = {"weight": 100, "preference": {"matchFields": list(fields.values())}}
        node["preferredDuringSchedulingIgnoredDuringExecution"] = [preferred]
    return affinity | {"nodeAffinity": node}


def _earlier(job: Json) -> dict[str, int]:
    """The annotation's content; nothing where somebody else wrote something else into it."""
    try:
        return _Counts.validate_json((job["metadata"].get("annotations") or {}).get(REFUSED_BY) or "{}")
    except ValidationError:
        return {}


def _admitted(job: Json, pods: Sequence[Json]) -> bool:
    """Whether one of the pods lives on a node that has admitted it, or that has refused none of them so far."""
    nodes = refusals(job, pods)
    living = [pod for pod in pods if not is_over(pod) and node_of(pod)]
    return any(containers(pod) or node_of(pod) not in nodes for pod in living)


def _ended(job: Json) -> bool:
    return true_condition(job, "Complete", "SuccessCriteriaMet", "Failed", "FailureTarget") is not None


def _pause_is_over(refused: Json, total: int, now: datetime, limits: RefusalLimits) -> bool:
    return lasts(created(refused), now, limits.pause_seconds * (total - 1))


def _age(job: Json, now: datetime) -> float:
    started = time_of(status_of(job).get("startTime")) or created(job)
    return (now - started).total_seconds() if started else 0.0

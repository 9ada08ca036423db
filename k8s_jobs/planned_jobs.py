"""The Job that is to take another one's place, kept in the cluster from before the other one is deleted.

Between the two there is no Job that says how often nodes refused the shard, and a run may die there. So the next Job is
written down first, as a suspended Job beside the shard's own: it starts no pod, has the attempt's labels, and is
removed with them. Whoever finds it without the Job that it follows creates that Job as it says.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.api_errors import ObjectMissing
from k8s_jobs.cluster_watch import jobs_path
from k8s_jobs.kueue import QUEUE_LABEL
from k8s_jobs.pod_status import name_of
from k8s_jobs.refusals import DEADLINE, REFUSED_BY

FOLLOWS = "leaderboard/follows"  # annotation: the uid of the Job whose place it takes
_ENDING = "-next"
_DELETION: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}


async def plan_job(api: KubernetesApi, namespace: str, manifest: Json, follows: str) -> None:
    """Write down the Job that takes the place of the one with the uid `follows`, instead of what was planned before."""
    await forget_plan(api, namespace, name_of(manifest))
    plan = deepcopy(manifest)
    plan["metadata"]["name"] += _ENDING
    plan["metadata"]["annotations"][FOLLOWS] = follows
    plan["spec"]["suspend"] = True
    plan["metadata"]["labels"].pop(QUEUE_LABEL, None)  # Kueue would let it start
    await api.create(jobs_path(namespace), plan)


async def planned_jobs(api: KubernetesApi, namespace: str, selector: str) -> dict[str, Json]:
    """The plans under the selector, by the name of the Job that they are for."""
    items = (await api.get(jobs_path(namespace), {"labelSelector": selector})).get("items") or []
    plans = [each for each in items if FOLLOWS in (each["metadata"].get("annotations") or {})]
    return {name_of(plan).removesuffix(_ENDING): plan for plan in plans}


async def forget_plan(api: KubernetesApi, namespace: str, name: str) -> None:
    """Delete what was planned for the Job of that name, if anything was."""
    try:
        await api.delete(jobs_path(namespace, f"{name}{_ENDING}"), body=_DELETION)
    except ObjectMissing:
        return


def as_planned(manifest: Json, plan: Json) -> Json:
    """The shard's own manifest with what the plan knows of refusals, budget, deadline and nodes."""
    annotations, spec = plan["metadata"]["annotations"], plan["spec"]
    known = {name: annotations[name] for name in (REFUSED_BY, DEADLINE) if name in annotations}
    changed: dict[str, Any] = deepcopy(manifest)
    changed["metadata"]["annotations"] |= known
    changed["spec"] |= {name: spec[name] for name in ("backoffLimit", "activeDeadlineSeconds")}
    pod: Mapping[str, Any] = spec["template"]["spec"]
    if "affinity" in pod:
        changed["spec"]["template"]["spec"]["affinity"] = pod["affinity"]
    return changed

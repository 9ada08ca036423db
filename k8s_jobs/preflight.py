"""Whether a cluster can be reached, and whether we may do there what the backend does."""

import asyncio
from collections.abc import Iterable

from evaluation.errors import InvalidConfiguration
from k8s_jobs.api import KubernetesApi, RequestLimits
from k8s_jobs.api_errors import ObjectMissing
from k8s_jobs.credentials import ClusterAccess
from k8s_jobs.kueue import GROUP, VISIBILITY, Kueue, condition_of, queues_path, version_of

# As deployments/eks/cluster/rbac.yaml has them: group, resource, verbs. Asking for one's own rights needs none.
Right = tuple[str, str, tuple[str, ...]]
RIGHTS: tuple[Right, ...] = (
    ("batch", "jobs", ("create", "get", "list", "watch", "delete", "deletecollection")),
    ("", "pods", ("get", "list", "watch", "delete")),
    ("", "pods/log", ("get",)),
    ("", "configmaps", ("create", "get")),
    ("", "events", ("get", "list", "watch")),
)
# And where Kueue is used, deployments/eks/kueue/rbac.yaml.
KUEUE_RIGHTS: tuple[Right, ...] = (
    (GROUP, "localqueues", ("create", "get", "list")),
    (GROUP, "workloads", ("get", "list")),
    (VISIBILITY, "localqueues/pendingworkloads", ("get",)),
)
_IMPATIENT = RequestLimits(answer_seconds=10, connect_seconds=5, attempts=2, retry_total_seconds=15)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def check_access(access: ClusterAccess, namespace: str, kueue: Kueue | None = None) -> str:
    """What was found, in words. Raises InvalidConfiguration where a right, Kueue or its queue is missing.

    Raises as well what KubernetesApi does.
    """
    kueue = kueue or Kueue()
    async with KubernetesApi(access, _IMPATIENT) as api:
        version = (await api.get("/version")).get("gitVersion", "of an unknown version")
        await _require(api, namespace, RIGHTS, "cluster")
        queue = await _queue(api, namespace, kueue) if kueue.used else ""
        jobs = await api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs", {"limit": "500"})
    return f"Kubernetes {version}, namespace {namespace}, {len(jobs.get('items') or [])} Jobs{queue}"


async def _require(api: KubernetesApi, namespace: str, wanted: Iterable[Right], folder: str) -> None:
    """Raise InvalidConfiguration that names the rights that are missing, and the file that gives them."""
    rights = [(group, resource, verb) for group, resource, verbs in wanted for verb in verbs]
    allowed = await asyncio.gather(*(_allowed(api, namespace, *right) for right in rights))
    missing = [f"{verb} {resource}" for (_, resource, verb), may in zip(rights, allowed, strict=True) if not may]
    if missing:
        raise InvalidConfiguration(
            f"The cluster forbids what shards need in the namespace {namespace}",
            ", ".join(missing),
            f"Apply deployments/eks/{folder}/rbac.yaml, and let an access entry put our role into its group.",
        )


async def _queue(api: KubernetesApi, namespace: str, kueue: Kueue) -> str:
    """Which queue the Jobs wait in, in words. Raises InvalidConfiguration where it is missing or takes none."""
    version = await version_of(api)
    await _require(api, namespace, KUEUE_RIGHTS, "kueue")
    if kueue.cluster_queue:  # an object of the whole cluster, which our role does not reach
        return f", a LocalQueue for each team in Kueue's ClusterQueue {kueue.cluster_queue}"
    try:
        queue = await api.get(queues_path(namespace, version, kueue.local_queue))
    except ObjectMissing as error:
        raise InvalidConfiguration(
            f"There is no LocalQueue {kueue.local_queue} in the namespace {namespace}",
            "the cluster's block names it",
            "Apply deployments/eks/kueue/queues.yaml, or correct local_queue.",
        ) from error
    active = condition_of(queue, "Active")
    if active.get("status") == "False":
        raise InvalidConfiguration(
            f"The LocalQueue {kueue.local_queue} is not active",
            str(active.get("message") or "Kueue does not say why"),
            "Apply deployments/eks/kueue/queues.yaml.",
        )
    return f", Kueue's LocalQueue {kueue.local_queue}"


async def _allowed(api: KubernetesApi, namespace: str, group: str, resource: str, verb: str) -> bool:
    name, _, part = resource.partition("/")
    wanted = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": part}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    answer = await api.create(_REVIEWS, review)
    return (answer.get("status") or {}).get("allowed") is True

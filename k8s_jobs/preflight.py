"""Whether a cluster can be reached, and whether we may do there what the backend does."""

import asyncio

from evaluation.errors import InvalidConfiguration
from k8s_jobs.api import KubernetesApi, RequestLimits
from k8s_jobs.credentials import ClusterAccess

# As deployments/eks/cluster/rbac.yaml has them: group, resource, verbs. Asking for one's own rights needs none.
RIGHTS = (
    ("batch", "jobs", ("create", "get", "list", "watch", "delete", "deletecollection")),
    ("", "pods", ("get", "list", "watch", "delete")),
    ("", "pods/log", ("get",)),
    ("", "configmaps", ("create", "get")),
    ("", "events", ("get", "list", "watch")),
)
_IMPATIENT = RequestLimits(answer_seconds=10, connect_seconds=5, attempts=2, retry_total_seconds=15)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def check_access(access: ClusterAccess, namespace: str) -> str:
    """What was found, in words. Raises InvalidConfiguration where a right is missing, and what KubernetesApi does."""
    async with KubernetesApi(access, _IMPATIENT) as api:
        version = (await api.get("/version")).get("gitVersion", "of an unknown version")
        rights = [(group, resource, verb) for group, resource, verbs in RIGHTS for verb in verbs]
        allowed = await asyncio.gather(*(_allowed(api, namespace, *right) for right in rights))
        missing = [f"{verb} {resource}" for (_, resource, verb), may in zip(rights, allowed, strict=True) if not may]
        if missing:
            raise InvalidConfiguration(
                f"The cluster forbids what shards need in the namespace {namespace}",
                ", ".join(missing),
                "Apply deployments/eks/cluster/rbac.yaml, and let an access entry put our role into its group.",
            )
        jobs = await api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs", {"limit": "500"})
    return f"Kubernetes {version}, namespace {namespace}, {len(jobs.get('items') or [])} Jobs"


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

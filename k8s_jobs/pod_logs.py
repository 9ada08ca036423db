"""The last lines of every container of a shard's pods."""

import asyncio

from evaluation.errors import RequestRefused
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.cluster_watch import JOB_LABEL, pods_path
from k8s_jobs.pod_status import by_age, name_of, phase

_MOST_BYTES = 1024 * 1024  # of one log: a line has no limit


async def last_lines(api: KubernetesApi, namespace: str, job_name: str, lines: int) -> dict[str, str]:
    """By container, of the newest pod; with `-previous` in the name, of the pod before it if that one failed."""
    listing = await api.get(pods_path(namespace), {"labelSelector": f"{JOB_LABEL}={job_name}"})
    pods = by_age(listing.get("items") or [])
    wanted = [(name, name, pods[-1]) for name in _containers(pods[-1])] if pods else []
    if len(pods) > 1 and phase(pods[-2]) == "Failed":
        wanted += [(f"{name}-previous", name, pods[-2]) for name in _containers(pods[-2])]
    texts = await asyncio.gather(*(_tail(api, namespace, pod, name, lines) for _, name, pod in wanted))
    return {key: text for (key, _, _), text in zip(wanted, texts, strict=True)}


def _containers(pod: Json) -> list[str]:
    spec = pod["spec"]
    return [each["name"] for each in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))]


async def _tail(api: KubernetesApi, namespace: str, pod: Json, container: str, lines: int) -> str:
    """Empty where the container has not started, or its node has forgotten it. NUL, which no database takes, goes."""
    query = {"container": container, "tailLines": str(lines), "limitBytes": str(_MOST_BYTES)}
    try:
        text = await api.text(f"{pods_path(namespace, name_of(pod))}/log", query)
    except RequestRefused:
        return ""
    return text[:_MOST_BYTES].replace("\0", "\ufffd")

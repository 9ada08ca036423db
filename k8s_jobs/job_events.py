"""Why a Job has no pod: its controller says so in Events only (quota, a missing service account, a webhook's no)."""

import time
from datetime import UTC, datetime

from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.pair.diagnosis import quoted
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.pod_status import created, name_of


class JobEvents:
    """The newest warning event of each Job; read seldom, and only for Jobs that should have a pod by now."""

    def __init__(self, api: KubernetesApi, namespace: str, seconds: float) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/events"
        self._seconds = seconds  # a Job's age from which on it should have a pod, and the pause between two requests
        self._asked: dict[str, tuple[float, str]] = {}

    async def about(self, job: Json) -> str:
        """The controller's message, or "" where there is none or we may not read it."""
        born = created(job)
        if born is None or (datetime.now(UTC) - born).total_seconds() < self._seconds:
            return ""
        asked_at, text = self._asked.get(name_of(job), (float("-inf"), ""))
        if time.monotonic() - asked_at >= self._seconds:
            text = await self._ask(job["metadata"]["uid"])
            self._asked[name_of(job)] = (time.monotonic(), text)
        return text

    async def _ask(self, uid: str) -> str:
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": "20"}
        try:
            events = (await self._api.get(self._path, query, retry=False)).get("items") or []
        except (RequestRefused, InvalidConfiguration, ServiceUnavailable):
            return ""  # an explanation is welcome, not needed
        newest = sorted(events, key=lambda event: str(event.get("lastTimestamp") or ""))[-1:]
        return quoted(newest[0].get("message")) if newest else ""

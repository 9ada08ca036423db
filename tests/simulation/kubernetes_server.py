"""The API server of a Kubernetes cluster: Jobs, pods and ConfigMaps, lists, watches, deletion; and its client.

The client is k8s_jobs.api.KubernetesApi with all its retries; only its HTTP exchange is replaced. A list is what there
is, as in the real one; a watch lags behind it, stops saying anything, or is told that its version is too old.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import aiohttp

from evaluation.errors import EvaluationError, ServiceUnavailable
from k8s_jobs.api import Json, KubernetesApi, Query
from k8s_jobs.api_errors import error_of, translated
from tests.simulation.calls import Calls, Trouble
from tests.simulation.prefect_server import EPOCH

KINDS = {"jobs": "Job", "pods": "Pod", "configmaps": "ConfigMap", "events": "Event"}
PAGE = 4  # objects in one answer to a list, whatever is asked for


@dataclass
class KubernetesServer:
    """`on_change(kind, event, object)` is the cluster's controllers."""

    calls: Calls
    objects: dict[str, dict[str, Json]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    on_change: list[Callable[[str, str, Json], None]] = field(default_factory=list)
    stopped: Callable[[Json], None] = lambda pod: None  # begins the end of a pod that is deleted
    logs: Callable[[str], str] = lambda pod: ""
    version: int = 100
    _versions: list[int] = field(default_factory=list)
    _log: list[tuple[float, str, str, Json, bytes]] = field(default_factory=list)
    _texts: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, name) -> the object as JSON
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _lists: dict[str, tuple[int, list[str]]] = field(default_factory=dict)  # what is left of a list, by its token
    collecting: bool = False  # whether what is deleted at the moment goes by its labels

    def time(self) -> str:
        return (EPOCH + timedelta(seconds=int(self.calls.hub.now))).isoformat().replace("+00:00", "Z")

    # Changes, each of which the watches see.

    def put(self, kind: str, item: Json) -> Json:
        metadata = item["metadata"]
        known = metadata["name"] in self.objects[kind]
        metadata.setdefault("uid", str(uuid4()))
        metadata.setdefault("creationTimestamp", self.time())
        item["kind"] = KINDS[kind]
        self.objects[kind][metadata["name"]] = item
        self._tell(kind, "MODIFIED" if known else "ADDED", item)
        return item

    def drop(self, kind: str, name: str) -> None:
        if item := self.objects[kind].pop(name, None):
            self._tell(kind, "DELETED", item)

    def _tell(self, kind: str, event: str, item: Json) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self._texts[kind, item["metadata"]["name"]] = text = json.dumps(item)
        line = f'{{"type": "{event}", "object": {text}}}\n'.encode()
        self._versions.append(self.version)
        labels = item["metadata"].get("labels") or {}
        self._log.append((self.calls.hub.now, kind, event, labels, line))
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()
        for controller in self.on_change:
            controller(kind, event, item)

    # Requests.

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Json | None) -> bytes:
        """The answer's body; raises what a refusal becomes."""
        parts = path.split("/namespaces/")[1].split("/")[1:]
        kind, name = parts[0], parts[1] if len(parts) > 1 else ""
        if parts[2:] == ["log"]:
            return self.logs(name).encode()
        if method == "POST":
            return self._create(path, kind, body or {})
        if method == "DELETE":
            return self._delete(path, kind, name, query, body or {})
        if name:
            if name not in self.objects[kind]:
                raise _refused(404, path)
            return self._texts[kind, name].encode()
        return self._list(kind, query)

    def _list(self, kind: str, query: Mapping[str, str]) -> bytes:
        if "fieldSelector" in query:
            return json.dumps({"items": [], "metadata": {"resourceVersion": str(self.version)}}).encode()
        if "continue" in query:  # the list as it was at its first page
            version, items = self._lists.pop(query["continue"])
        else:
            selector = query.get("labelSelector", "")
            found = sorted(name for name, item in self.objects[kind].items() if _matches(item, selector))
            items = [self._texts[kind, name] for name in found]
            version = self.version
        metadata = {"resourceVersion": str(version)}
        if "limit" in query and len(items) > PAGE:
            metadata["continue"] = token = str(uuid4())
            self._lists[token] = version, items[PAGE:]
            items = items[:PAGE]
        return f'{{"metadata": {json.dumps(metadata)}, "items": [{", ".join(items)}]}}'.encode()

    def _create(self, path: str, kind: str, item: Json) -> bytes:
        item = json.loads(json.dumps(item))
        if item["metadata"]["name"] in self.objects[kind]:
            raise _refused(409, path)
        self.put(kind, item)
        return self._texts[kind, item["metadata"]["name"]].encode()

    def _delete(self, path: str, kind: str, name: str, query: Mapping[str, str], options: Json) -> bytes:
        if name and name not in self.objects[kind]:
            raise _refused(404, path)
        found = [self.objects[kind][name]] if name else list(self.objects[kind].values())
        uid = (options.get("preconditions") or {}).get("uid")
        if name and uid and found[0]["metadata"]["uid"] != uid:
            raise _refused(409, path)
        self.collecting = not name
        for item in found:
            if name or _matches(item, query.get("labelSelector", "")):
                at_once = options.get("gracePeriodSeconds") == 0 or options.get("propagationPolicy") == "Background"
                self.delete(kind, item, force=at_once)
        self.collecting = False
        return b"{}"

    def delete(self, kind: str, item: Json, force: bool = False) -> None:
        """A Job in the foreground: after its pods. A pod once its containers have ended."""
        name = item["metadata"]["name"]
        if force or kind not in ("jobs", "pods"):
            self.drop(kind, name)
            return
        if item["metadata"].get("deletionTimestamp"):
            return
        item["metadata"]["deletionTimestamp"] = self.time()
        self.put(kind, item)
        if kind == "pods":
            self.stopped(item)

    # Watches.

    async def next_line(self, kind: str, selector: str, after: int, until: float) -> tuple[int, bytes]:
        """The next event after that version, and its own version; b"" at the end of the watch."""
        hub, chance = self.calls.hub, self.calls.chance
        loop = asyncio.get_running_loop()
        while True:
            at = bisect_right(self._versions, after)
            while at < len(self._log):
                told, found, _, labels, line = self._log[at]
                after = self._versions[at]
                if found == kind and _matches({"metadata": {"labels": labels}}, selector):
                    lag = chance.random.uniform(5, 60) if chance.strikes("watch lags", kind, hub.now) else 0.05
                    if told + lag > hub.now:
                        await asyncio.sleep(told + lag - hub.now)
                    return after, line
                at += 1
            left = until - loop.time()
            if left <= 0:
                return after, b""
            changed = loop.create_future()
            self._waiting.append(lambda: loop.call_soon(_wake, changed))  # noqa: B023
            try:
                async with asyncio.timeout(left):
                    await changed
            except TimeoutError:
                return after, b""


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _matches(item: Json, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (part.split("=") for part in selector.split(",") if part))


def _refused(code: int, path: str) -> EvaluationError:
    return error_of(code, json.dumps({"message": path, "reason": str(code)}), path)


class _Response:
    """An aiohttp response, as far as k8s_jobs.api reads one."""

    def __init__(self, body: bytes = b"", readline: Any = None) -> None:
        self._body = body
        self.content = self
        self._readline = readline

    async def read(self) -> bytes:
        return self._body

    async def readline(self) -> bytes:
        line: bytes = await self._readline()
        return line


def simulated_api(server: KubernetesServer) -> type[KubernetesApi]:
    """The class that stands for KubernetesApi: the same but for the exchange."""

    class SimulatedApi(KubernetesApi):
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            return

        @property
        def token_seconds_left(self) -> float:
            return 600.0

        @asynccontextmanager
        async def _response(  # type: ignore[override]
            self,
            method: str,
            path: str,
            query: Query | None,
            body: Json | None,
            timeout: aiohttp.ClientTimeout,
            verb: str = "",
        ) -> AsyncIterator[_Response]:
            what = f"{verb or method} {path}"
            kind = path.split("/namespaces/")[1].split("/")[1]
            self.requests[verb or method] += 1
            with translated(what):
                try:
                    if verb:
                        await server.calls.awaited("kubernetes", f"watch {kind}", lambda: None)
                        yield _Response(readline=_Watch(server, kind, query or {}).readline)
                        return
                    answer = await server.calls.awaited(
                        "kubernetes",
                        f"{method} {kind}",
                        lambda: server.answer(method, path, query or {}, body),
                        timeout.total or 30.0,
                    )
                except Trouble as trouble:
                    if trouble.kind == "silent":
                        raise TimeoutError from None
                    raise ServiceUnavailable(f"{what}: {trouble.kind}") from None
                yield _Response(answer)

    return SimulatedApi


class _Watch:
    """One watch; `readline` as aiohttp's."""

    def __init__(self, server: KubernetesServer, kind: str, query: Query) -> None:
        self._server = server
        self._kind = kind
        self._query = query
        self._after = int(query["resourceVersion"])
        self._until = asyncio.get_running_loop().time() + float(query["timeoutSeconds"])

    async def readline(self) -> bytes:
        calls = self._server.calls
        if calls.chance.strikes("watch lost", self._kind, calls.hub.now):
            if calls.chance.random.random() < 0.5:
                await asyncio.sleep(75.0)
                raise TimeoutError
            status = {"code": 410, "reason": "Expired", "message": "too old resource version"}
            return json.dumps({"type": "ERROR", "object": status}).encode()
        if calls.is_away("kubernetes"):
            await asyncio.sleep(75.0)
            raise TimeoutError
        selector = self._query.get("labelSelector", "")
        self._after, line = await self._server.next_line(self._kind, selector, self._after, self._until)
        return line

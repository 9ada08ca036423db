"""A small Kubernetes API over real HTTP: Jobs, pods, ConfigMaps, watches, and their failures."""

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Trouble = Callable[[web.Request], web.StreamResponse | None]

KINDS = {"jobs": "Job", "pods": "Pod", "configmaps": "ConfigMap", "events": "Event"}
KUEUE = {"localqueues": "LocalQueue", "workloads": "Workload"}
KINDS |= KUEUE


class KubernetesServer:
    """`troubles` are asked before the server answers; the first one that returns a response is used, once."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        self.requests: list[tuple[str, str]] = []
        self.tokens_seen: list[str] = []
        self.troubles: list[Trouble] = []
        self.accepted_token: str | None = None
        self.stuck: set[str] = set()  # names that stay in deletion
        self.delay_seconds = 0.0  # before every answer
        self.logs: dict[tuple[str, str], str | bytes] = {}  # (pod, container) -> what it has written
        self.has_kueue = False
        self.pending: dict[str, list[Json]] = {}  # LocalQueue -> what Kueue's visibility API lists
        self.port = 0
        self._versions = itertools.count(100)
        self._watches: list[tuple[str, str, asyncio.Queue[Json | str], web.Request]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, verb: str, ending: str) -> int:
        return sum(1 for method, path in self.requests if method == verb and path.endswith(ending))

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        self.drop_connections()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def put(self, kind: str, item: Json) -> Json:
        """Create or change an object, and notify the watches."""
        metadata = item["metadata"]
        known = metadata["name"] in self.objects[kind]
        metadata.setdefault("uid", f"uid-{next(self._versions)}")
        metadata.setdefault("creationTimestamp", datetime.now(UTC).isoformat())
        metadata["resourceVersion"] = str(next(self._versions))
        item["kind"] = KINDS[kind]
        self.objects[kind][metadata["name"]] = item
        self._tell(kind, "MODIFIED" if known else "ADDED", item)
        return item

    def drop(self, kind: str, name: str) -> None:
        item = self.objects[kind].pop(name, None)
        if item:
            item["metadata"]["resourceVersion"] = str(next(self._versions))
            self._tell(kind, "DELETED", item)

    @property
    def watches(self) -> int:
        return len(self._watches)

    def end_watches(self) -> None:
        for _, _, queue, _ in self._watches:
            queue.put_nowait("")

    def expire_watches(self) -> None:
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (9)"}
        for _, _, queue, _ in self._watches:
            queue.put_nowait({"type": "ERROR", "object": status})

    def drop_connections(self) -> None:
        """Mid-watch, mid-line, without a goodbye."""
        for _, _, _, request in self._watches:
            if request.transport:
                request.transport.abort()

    def deafen_watches(self) -> None:
        """The connections stay open and say nothing any longer."""
        self._watches = []

    def _tell(self, kind: str, what: str, item: Json) -> None:
        for watched, selector, queue, _ in self._watches:
            if watched == kind and _matches(item, selector):
                queue.put_nowait({"type": what, "object": json.loads(json.dumps(item))})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        watching = "watch" in request.query
        self.requests.append(("WATCH" if watching else request.method, request.path))
        self.tokens_seen.append(request.headers.get("Authorization", ""))
        await asyncio.sleep(self.delay_seconds)
        for trouble in self.troubles:
            if answer := trouble(request):
                self.troubles.remove(trouble)
                return answer
        if self.accepted_token and request.headers.get("Authorization") != f"Bearer {self.accepted_token}":
            return status(401, "Unauthorized", "Unauthorized")
        if "kueue.x-k8s.io" in request.path and (answer := self._kueue(request)):
            return answer
        parts = request.path.split("/namespaces/")[1].split("/")[1:]
        kind, name, rest = parts[0], parts[1] if len(parts) > 1 else "", parts[2:]
        if watching:
            return await self._watch(request, kind)
        if rest == ["log"]:
            return self._log(name, request.query["container"])
        return await {"GET": self._get, "POST": self._post, "DELETE": self._delete}[request.method](request, kind, name)

    def _kueue(self, request: web.Request) -> web.Response | None:
        """Kueue's groups, and what its visibility server says; None for its objects, which are like all others."""
        group, _, rest = request.path.removeprefix("/apis/").partition("/")
        if not self.has_kueue:
            return status(404, "NotFound", "the server could not find the requested resource")
        if not rest:
            return web.json_response({"kind": "APIGroup", "name": group, "preferredVersion": {"version": "v1beta2"}})
        if not group.startswith("visibility"):
            return None
        queue = request.path.split("/localqueues/")[1].removesuffix("/pendingworkloads")
        return web.json_response({"kind": "PendingWorkloadsSummary", "items": self.pending.get(queue, [])})

    async def _get(self, request: web.Request, kind: str, name: str) -> web.Response:
        if name:
            item = self.objects[kind].get(name)
            return web.json_response(item) if item else status(404, "NotFound", f'{kind} "{name}" not found')
        items = self._selected(request, kind)
        metadata = {"resourceVersion": str(next(self._versions))}
        return web.json_response({"kind": KINDS[kind] + "List", "metadata": metadata, "items": items})

    async def _post(self, request: web.Request, kind: str, _: str) -> web.Response:
        item = await request.json()
        if item["metadata"]["name"] in self.objects[kind]:
            return status(409, "AlreadyExists", f'{kind} "{item["metadata"]["name"]}" already exists')
        return web.json_response(self.put(kind, item), status=201)

    async def _delete(self, request: web.Request, kind: str, name: str) -> web.Response:
        body = await request.json()
        doomed = [self.objects[kind][name]] if name in self.objects[kind] else []
        if name and not doomed:
            return status(404, "NotFound", f'{kind} "{name}" not found')
        uid = (body.get("preconditions") or {}).get("uid")
        if uid and uid != doomed[0]["metadata"]["uid"]:
            return status(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        for item in doomed or self._selected(request, kind):
            self._end(kind, item, force=body.get("gracePeriodSeconds") == 0)
        return web.json_response({"kind": "Status", "status": "Success"})

    def _end(self, kind: str, item: Json, *, force: bool) -> None:
        name = item["metadata"]["name"]
        if name in self.stuck and not force:
            item["metadata"].setdefault("deletionTimestamp", "2026-11-20T10:00:00Z")
            self.put(kind, item)
            return
        self.drop(kind, name)
        owner = (item["metadata"].get("ownerReferences") or [{}])[0].get("name")
        if kind == "pods" and owner in self.objects["jobs"] and owner in self.stuck:
            self.drop("jobs", owner)  # the Job was waiting for its last pod
        for pod in [each for each in self.objects["pods"].values() if _owner(each) == item["metadata"]["uid"]]:
            self._end("pods", pod, force=False)

    def _log(self, pod: str, container: str) -> web.Response:
        if (pod, container) not in self.logs:
            return status(400, "BadRequest", f'container "{container}" in pod "{pod}" is waiting to start')
        log = self.logs[pod, container]
        body = log if isinstance(log, bytes) else log.encode()
        return web.Response(body=body, content_type="text/plain")  # a container's bytes, and no charset

    def _selected(self, request: web.Request, kind: str) -> list[Json]:
        selector = request.query.get("labelSelector", "")
        return [item for item in self.objects[kind].values() if _matches(item, selector)]

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[Json | str] = asyncio.Queue()
        watch = (kind, request.query.get("labelSelector", ""), queue, request)
        self._watches.append(watch)
        try:
            while event := await queue.get():
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            if watch in self._watches:
                self._watches.remove(watch)
        return response


def status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


def once(method: str, ending: str, answer: web.StreamResponse) -> Trouble:
    """A trouble for the next request with this method (WATCH for a watch) whose path ends so."""

    def trouble(request: web.Request) -> web.StreamResponse | None:
        verb = "WATCH" if "watch" in request.query else request.method
        return answer if verb == method and request.path.endswith(ending) else None

    return trouble


def _owner(item: Json) -> str:
    return str((item["metadata"].get("ownerReferences") or [{}])[0].get("uid", ""))


def _matches(item: Json, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (part.split("=") for part in selector.split(",") if part))


@asynccontextmanager
async def running_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[KubernetesServer]:
    server = KubernetesServer()
    await server.start(tls)
    try:
        yield server
    finally:
        await server.stop()

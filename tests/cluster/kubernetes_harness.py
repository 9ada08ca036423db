"""Kubernetes as the job backends' contract suite sees it: a real control plane, this machine's processes as containers.

The API server, the scheduler and the Job controller are real. KWOK shows the pods' status; what would run in them are
the pair's real scripts in a run directory of local_jobs, which `_Kubelet` starts, reports and ends.
"""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster_under_test import ClusterUnderTest
from control_plane import ControlPlane
from kubernetes_asyncio import client
from simulated_jobs import PREFIX

import local_jobs
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.credentials import Kubeconfig
from local_jobs.run_directory import RunDirectory, end_processes, tail
from tests.contract.pair_processes import PairProcesses, log_files
from tests.kubernetes_objects import cluster_spec

ROUTES = Path(local_jobs.__file__).parent / "routes" / "leaderboard-20.xml"
POLL_SECONDS = 0.1
LOG_LINES = 100
LOGS = {"simulator": "simulator", "agent": "agent", "supervisor": "supervisor", "init": "private-contents"}
SECONDS_TO_THE_DEADLINE = 3600.0  # Kubernetes ends a Job at its own deadline

Json = dict[str, Any]


class KubernetesHarness(PairProcesses):
    """Jobs of one namespace; `left` also names the Jobs and pods that exist."""

    log_names = frozenset({"evaluator", "private-contents", "supervisor", "simulator", "agent"})

    def __init__(self, cluster: ClusterUnderTest, plane: ControlPlane, workdir: Path, storage: dict[str, str]) -> None:
        self.cluster = cluster
        self.plane = plane
        self.workdir = workdir
        self.storage = storage
        self.namespace = f"contract-{uuid.uuid4().hex[:10]}"

    def backend(self) -> KubernetesJobBackend:
        return KubernetesJobBackend(Kubeconfig(str(self.cluster.kubeconfig)), self._spec())

    def left(self) -> list[str]:
        return [*asyncio.run(self._objects()), *super().left()]

    @contextmanager
    def nodes_run(self) -> Iterator[None]:
        """The namespace, and meanwhile a kubelet that runs its pods."""
        asyncio.run(self._create_namespace())
        kubelet = _Kubelet(self)
        thread = threading.Thread(target=asyncio.run, args=(kubelet.run(),), name="kubelet")
        thread.start()
        try:
            yield
        finally:
            kubelet.stop.set()
            thread.join()
            asyncio.run(self._delete_namespace())
        if kubelet.error:
            raise kubelet.error

    def _spec(self) -> ClusterSpec:
        return cluster_spec(
            self.namespace,
            routes_location=str(ROUTES),
            simulator_warmup_seconds=0.1,
            copy_seconds=0.2,
            poll_seconds=0.05,
        )

    async def _objects(self) -> list[str]:
        async with self.cluster.connect() as api:
            jobs = await client.BatchV1Api(api).list_namespaced_job(self.namespace)
            pods = await client.CoreV1Api(api).list_namespaced_pod(self.namespace)
        return [
            f"{kind} {each.metadata.name}" for kind, found in (("Job", jobs), ("Pod", pods)) for each in found.items
        ]

    async def _create_namespace(self) -> None:
        async with self.cluster.connect() as api:
            core = client.CoreV1Api(api)
            await core.create_namespace({"metadata": {"name": self.namespace}})
            await core.create_namespaced_service_account(self.namespace, {"metadata": {"name": "submission-worker"}})

    async def _delete_namespace(self) -> None:
        async with self.cluster.connect() as api:
            await client.CoreV1Api(api).delete_namespace(self.namespace)


class _Kubelet:
    """Runs every running pod of the namespace. A pod is held until its processes have ended, as a real one is."""

    def __init__(self, harness: KubernetesHarness) -> None:
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._harness = harness
        self._pods: dict[str, _Pod] = {}  # by uid

    async def run(self) -> None:
        try:
            async with self._harness.cluster.connect() as api:
                core = client.CoreV1Api(api)
                while not self.stop.is_set():
                    await self._sync(core)
                    await asyncio.sleep(POLL_SECONDS)
        except Exception as error:  # noqa: BLE001 - the test raises it
            self.error = error
        finally:
            end_processes(f"{self._harness.workdir.resolve()}/", (), grace=0, deadline=10)

    async def _sync(self, core: client.CoreV1Api) -> None:
        answer = await core.list_namespaced_pod(
            self._harness.namespace, field_selector="status.phase=Running", _preload_content=False
        )
        for found in (await answer.json())["items"]:
            uid = found["metadata"]["uid"]
            if uid not in self._pods and "deletionTimestamp" not in found["metadata"]:
                self._pods[uid] = _Pod(self._harness, found, core)
            if pod := self._pods.get(uid):
                pod.sync("deletionTimestamp" in found["metadata"])
                pod.write_logs()


class _Pod:
    """One pod's processes. What takes long is a task of its own, so that pods do not wait for each other."""

    def __init__(self, harness: KubernetesHarness, found: Json, core: client.CoreV1Api) -> None:
        metadata = found["metadata"]
        self._harness = harness
        self._core = core
        self._name = metadata["name"]
        self._containers = [*found["spec"]["initContainers"], *found["spec"]["containers"]]
        job = metadata["labels"]["batch.kubernetes.io/job-name"]
        self._directory = RunDirectory(harness.workdir.resolve() / f"{job}-{metadata['uid'][:8]}")
        self._is_up = False
        self._is_over = False
        self._task: asyncio.Task[None] = asyncio.create_task(self._start())

    def sync(self, is_deleted: bool) -> None:
        if not self._task.done():
            return
        self._task.result()
        if self._is_over or not self._is_up:
            return
        if is_deleted:
            self._is_over = True
            self._task = asyncio.create_task(self._end())
        elif self._directory.exit is not None or self._directory.lost:
            self._is_over = True
            self._task = asyncio.create_task(self._report(self._directory.exit or "137"))

    def write_logs(self) -> None:
        """Of any pod in this namespace: KWOK has one log for each container name."""
        for name, path in log_files(self._directory).items():
            if lines := tail(path, LOG_LINES).splitlines():
                self._harness.plane.write_log(LOGS[name], lines)

    async def _start(self) -> None:
        answer = await self._annotate(held="yes")
        if answer and answer.metadata.deletion_timestamp is None:
            given = {
                each["name"]: each["value"] for part in self._containers for each in part["env"] if "value" in each
            }
            image = next(part["image"] for part in self._containers if part["name"] == "agent")
            job = self._harness.pod(self._directory, given, image, SECONDS_TO_THE_DEADLINE)
            await asyncio.to_thread(self._directory.accept, job, self._harness.storage)
            self._is_up = True
        else:
            await self._annotate(held=None)

    async def _end(self) -> None:
        directory = self._directory
        await asyncio.to_thread(end_processes, f"{directory.path}/", [directory.pid], grace=3, deadline=10)
        await self._annotate(held=None)

    async def _report(self, code: str) -> None:
        outcome = {"outcome": "succeed"} if code == "0" else {"outcome": "fail", "exit-code": code}
        await self._annotate(**outcome)

    async def _annotate(self, **annotations: str | None) -> Any:
        """None where the pod is gone."""
        patch = {"metadata": {"annotations": {PREFIX + key: value for key, value in annotations.items()}}}
        with suppress(client.ApiException):
            return await self._core.patch_namespaced_pod(self._name, self._harness.namespace, patch)
        return None

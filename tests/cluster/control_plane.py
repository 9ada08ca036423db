"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, KWOK for the GPU nodes.

`python tests/cluster/control_plane.py [folder]` starts one by hand, prints its kubeconfig and runs until interrupted.
"""

import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from access import AdminClient, write_kubeconfig
from binaries import ensure_binaries
from certificates import Authority
from processes import Component, ControlPlaneError, free_ports
from simulated_nodes import FAKE_NODE, GPUS_PER_NODE, STAGES, gpu_node, write_log, write_logs_config

START_SECONDS = 120  # an idle machine takes five

# What Jobs, their pods and namespaces need; the other controllers would only cost memory.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
)


class ControlPlane:
    """Context manager; `kubeconfig` is the administrator's. It writes into `work_dir` and leaves its logs there."""

    admin: AdminClient  # from start() on

    def __init__(
        self, bin_dir: Path, work_dir: Path, nodes: Sequence[str] = ("gpu-a", "gpu-b", "gpu-c", "gpu-d")
    ) -> None:
        self.work_dir = work_dir
        self.kubeconfig = work_dir / "admin.kubeconfig"
        self.nodes = tuple(nodes)
        self.components: dict[str, Component] = {}
        self._bin = bin_dir
        self._ports = free_ports("etcd", "peer", "api", "controllers", "scheduler", "nodes")
        self._server = f"https://127.0.0.1:{self._ports['api']}"
        # The kernel sends the death signal when the *thread* that started a process ends: one thread of our own starts
        # them all, so that they outlive a caller's short-lived thread (an event loop's, say) but not this process.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="control-plane")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when pods can be scheduled. Raises ControlPlaneError with the end of the culprit's log."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(self.work_dir / "certificates")
        self._local = self._authority.issue("control-plane", hosts=("127.0.0.1", "localhost", "kubernetes.default.svc"))
        self._service_accounts = Authority(self.work_dir / "service-accounts").pair
        self._kubelet_client = self._authority.issue("kubelet-client", organization="system:masters")
        admin = self._authority.issue("admin", organization="system:masters")
        write_kubeconfig(self.kubeconfig, self._server, self._authority.pair.certificate, admin)
        self.admin = AdminClient(self._server, self._authority.pair.certificate, admin)
        self._run("etcd", self._etcd())
        self._run("kube-apiserver", self._apiserver())
        self._await("the API server", lambda: self.admin("GET", "/readyz") == b"ok")
        self._run("kube-controller-manager", self._controllers())
        self._run("kube-scheduler", self._scheduler())
        self._run("kwok", self._kwok())
        for name in self.nodes:
            self.add_node(name)
        self._await(
            "the default service account", lambda: self._exists("/api/v1/namespaces/default/serviceaccounts/default")
        )
        self._await("the scheduler", lambda: self._listens("scheduler"))
        for name in self.nodes:
            self.await_node(name)

    def stop(self) -> None:
        """Ends every process at once: nothing in `work_dir` is worth an orderly shutdown."""
        with ExitStack() as stack:
            stack.callback(self._starter.shutdown)
            stack.callback(shutil.rmtree, self.work_dir / "etcd", ignore_errors=True)  # a hundred megabytes
            for component in self.components.values():
                stack.callback(component.stop, grace_seconds=0)
        self.components = {}

    def restart_apiserver(self, *, grace_seconds: float = 10) -> None:
        """Ends the API server (0 seconds of grace: kill -9) and returns when it is ready again, at the same address."""
        self.components["kube-apiserver"].stop(grace_seconds=grace_seconds)
        self.start_component(self.components["kube-apiserver"])
        self._await("the API server", lambda: self.admin("GET", "/readyz") == b"ok")

    def add_node(self, name: str, gpus: int = GPUS_PER_NODE) -> None:
        self.admin("POST", "/api/v1/nodes", gpu_node(name, gpus))

    def delete_node(self, name: str) -> None:
        self.admin("DELETE", f"/api/v1/nodes/{name}")

    def await_node(self, name: str) -> None:
        """Returns when the node takes pods. Raises ControlPlaneError."""

        def takes_pods() -> bool:
            node = json.loads(self.admin("GET", f"/api/v1/nodes/{name}"))
            conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
            return conditions.get("Ready") == "True" and not node["spec"].get("taints")

        self._await(f"node {name}", takes_pods)

    def write_log(self, container: str, lines: Sequence[str]) -> None:
        """What the API server answers from now on as the log of that container (see CONTAINERS) of any pod."""
        write_log(self.work_dir / "logs", container, lines)

    def _run(self, name: str, command: Sequence[str]) -> None:
        component = Component(name, [str(self._bin / command[0]), *command[1:]], self.work_dir)
        self.components[name] = component
        self.start_component(component)

    def _await(self, what: str, probe: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _holds(probe):
            for component in self.components.values():
                component.check()
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {each.name}\n{each.tail()}" for each in self.components.values())
                raise ControlPlaneError(f"{what} was not ready after {START_SECONDS} s\n{tails}")
            time.sleep(0.1)

    def _exists(self, path: str) -> bool:
        return bool(self.admin("GET", path))

    def _listens(self, port: str) -> bool:
        with socket.create_connection(("127.0.0.1", self._ports[port]), timeout=1):
            return True

    @property
    def authority(self) -> Path:
        """The certificate that signed everybody's."""
        return self._authority.pair.certificate

    def kubeconfig_of(self, user: str, organization: str | None = None) -> Path:
        """A new kubeconfig for this user, of this group."""
        path = self.work_dir / f"{user.replace(':', '-')}.kubeconfig"
        write_kubeconfig(path, self._server, self.authority, self._authority.issue(user, organization))
        return path

    def start_component(self, component: Component) -> None:
        """In the thread whose end would be the component's; the caller stops it."""
        self._starter.submit(component.start).result()

    def _etcd(self) -> list[str]:
        client, peer = f"https://127.0.0.1:{self._ports['etcd']}", f"http://127.0.0.1:{self._ports['peer']}"
        return [
            "etcd",
            f"--data-dir={self.work_dir / 'etcd'}",
            "--unsafe-no-fsync",  # the data is thrown away; without it a slow disk stalls every write
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--cert-file={self._local.certificate}",
            f"--key-file={self._local.key}",
            f"--trusted-ca-file={self._authority.pair.certificate}",
            "--client-cert-auth",
            "--log-level=warn",
        ]

    def _apiserver(self) -> list[str]:
        return [
            "kube-apiserver",
            f"--etcd-servers=https://127.0.0.1:{self._ports['etcd']}",
            f"--etcd-cafile={self._authority.pair.certificate}",
            f"--etcd-certfile={self._local.certificate}",
            f"--etcd-keyfile={self._local.key}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # refuses a loopback address
            f"--secure-port={self._ports['api']}",
            "--service-cluster-ip-range=10.96.0.0/24",
            f"--client-ca-file={self._authority.pair.certificate}",
            f"--tls-cert-file={self._local.certificate}",
            f"--tls-private-key-file={self._local.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._service_accounts.certificate}",
            f"--service-account-signing-key-file={self._service_accounts.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={self._kubelet_client.certificate}",
            f"--kubelet-client-key={self._kubelet_client.key}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--shutdown-watch-termination-grace-period=1s",  # else open watches hold a restart up for a minute
            "--profiling=false",
        ]

    def _controllers(self) -> list[str]:
        return [
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig_of('system:kube-controller-manager')}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._service_accounts.key}",
            f"--root-ca-file={self._authority.pair.certificate}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports['controllers']}",
            f"--cert-dir={self.work_dir / 'controllers'}",
            "--node-monitor-period=1s",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
        ]

    def _scheduler(self) -> list[str]:
        return [
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig_of('system:kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports['scheduler']}",
            f"--cert-dir={self.work_dir / 'scheduler'}",
            "--profiling=false",
        ]

    def _kwok(self) -> list[str]:
        selector = ",".join(f"{key}={value}" for key, value in FAKE_NODE.items())
        return [
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={STAGES}",
            f"--config={write_logs_config(self.work_dir / 'logs')}",
            "--node-ip=127.0.0.1",
            f"--node-port={self._ports['nodes']}",
            f"--server-address=127.0.0.1:{self._ports['nodes']}",
            f"--tls-cert-file={self._local.certificate}",
            f"--tls-private-key-file={self._local.key}",
            f"--manage-nodes-with-annotation-selector={selector}",
            "--node-lease-duration-seconds=40",
            "--cidr=10.64.0.1/16",
        ]


def _holds(probe: Callable[[], bool]) -> bool:
    try:
        return probe()
    except (OSError, HTTPException):
        return False


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(tempfile.mkdtemp(prefix="control-plane-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ControlPlane(ensure_binaries(), folder) as plane:
        print(f"KUBECONFIG={plane.kubeconfig}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])

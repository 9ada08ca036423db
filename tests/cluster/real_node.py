"""One real node for the control plane: kubelet, containerd and runc on this machine, in namespaces of their own.

They see a /run, a /var/lib and a /var/log of their own, and end, with every container and mount, when the first process
of their namespace does. Left to remove are the bridge, the control groups and the folder. docs/real-node.md.
"""

import json
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from control_plane import ControlPlane
from device_plugin import DevicePlugin
from node_config import (
    KERNEL_SETTINGS,
    KUBELET_CONFIG,
    NETWORKS,
    RUNTIME_CONFIG,
    containerd_config,
    kubelet_config,
    network_config,
)
from node_tools import Tools, cgroup_hierarchies, free_subnet, new_mark, remove_leftovers, remove_marked, run_tool
from processes import Component, ControlPlaneError, free_ports

START_SECONDS = 90
END_SECONDS = 20
GPUS = tuple(f"GPU-00000000-0000-0000-0000-{number:012}" for number in range(4))
INSTANCE_TYPE = "real"  # of the label by which pods ask for this node
# The node's first process: its own folders, then nothing but to reap what is orphaned.
_FIRST_PROCESS = """set -e
mount -t tmpfs tmpfs /run
for folder in lib log; do mount --bind "$1/$folder" "/var/$folder"; done
for file in "$1"/sysctl/*; do name="${file##*/}"; mount --bind "$file" "/proc/sys/${name//.//}"; done
touch "$1/mounted"
sleep infinity & wait
"""


class RealNode:
    """Context manager; `address` is this machine's as the pods reach it. Logs stay in `folder`."""

    def __init__(
        self, plane: ControlPlane, tools: Tools, folder: Path, sandbox_image: str, name: str = "real-node"
    ) -> None:
        self.name = name
        self._plane = plane
        self._tools = tools
        self._folder = folder
        self._sandbox_image = sandbox_image
        self.mark = new_mark()  # the name of its bridge and of its control groups
        self._subnet = free_subnet()
        self.address = str(next(self._subnet.hosts()))
        self._plugins = folder / "lib/kubelet/device-plugins"
        self._plugin = DevicePlugin(self._plugins, GPUS)
        self._components: dict[str, Component] = {}
        self._namespaces: Path | None = None

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
        """Returns when the node is Ready and offers its GPUs. Raises ControlPlaneError with the end of the logs."""
        remove_leftovers()
        self._write_files()
        self._make_bridge()
        for hierarchy in cgroup_hierarchies():
            (hierarchy / self.mark).mkdir()
        self._run("first", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *self._first()])
        process = self._components["first"].process
        assert process is not None
        self._namespaces = Path(f"/proc/{process.pid}/ns")
        self._await("its mounts", (self._folder / "mounted").exists)
        self._run("containerd", self._inside([self._tools.containerd, f"--config={self._folder / RUNTIME_CONFIG}"]))
        self._run("kubelet", self._inside(self._kubelet()))
        self._await("the kubelet's plugins", (self._plugins / "kubelet.sock").exists)
        self._plugin.start()
        self._await("Ready with its GPUs", self._takes_pods)

    def stop(self) -> None:
        """Ends every process and container, then removes all but the logs. Raises ControlPlaneError for what stays."""
        with ExitStack() as stack:
            stack.callback(self._remove_node)
            stack.callback(shutil.rmtree, self._folder / "lib", ignore_errors=True)
            stack.callback(remove_marked, self.mark)
            stack.callback(self._plugin.stop)
            for component in self._components.values():
                stack.callback(component.stop, grace_seconds=0)
            self._end_namespace()
        self._components = {}

    def processes(self) -> list[psutil.Process]:
        """All of the node, containers' included."""
        roots = [component.process for component in self._components.values() if component.process]
        found = [psutil.Process(root.pid) for root in roots]
        return [process for root in found for process in (root, *root.children(recursive=True))]

    def container_processes(self) -> list[psutil.Process]:
        """Those that are neither in this process's namespace nor in the node's own."""
        outside = {Path("/proc/self/ns/pid").readlink(), Path(f"{self._namespaces}/pid_for_children").readlink()}
        found = []
        for process in self.processes():
            with suppress(FileNotFoundError):  # it has just ended
                if Path(f"/proc/{process.pid}/ns/pid").readlink() not in outside:
                    found.append(process)
        return found

    def tails(self) -> str:
        return "\n".join(f"--- {each.name}\n{each.tail(40)}" for each in self._components.values())

    def _write_files(self) -> None:
        for name in ("lib", "log", "sysctl", NETWORKS):
            (self._folder / name).mkdir(parents=True)
        for name, value in KERNEL_SETTINGS.items():
            (self._folder / "sysctl" / name.replace("/", ".")).write_text(f"{value}\n")
        networks = self._folder / NETWORKS
        (networks / "pods.conflist").write_text(network_config(self.mark, str(self._subnet)))
        runtime = containerd_config(self._sandbox_image, self._tools.runc, networks, self._tools.plugins)
        (self._folder / RUNTIME_CONFIG).write_text(runtime)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        port = free_ports("kubelet")["kubelet"]
        settings = kubelet_config(self.address, port, self._plane.authority, f"/{self.mark}", files)
        (self._folder / KUBELET_CONFIG).write_text(json.dumps(settings, indent=2))

    def _make_bridge(self) -> None:
        run_tool("ip", "link", "add", self.mark, "type", "bridge")
        run_tool("ip", "address", "add", f"{self.address}/{self._subnet.prefixlen}", "dev", self.mark)
        run_tool("ip", "link", "set", self.mark, "up")

    def _first(self) -> list[str]:
        return ["--propagation=private", "bash", "-c", _FIRST_PROCESS, "first", str(self._folder)]

    def _inside(self, command: Sequence[str]) -> list[str]:
        spaces = [f"--mount={self._namespaces}/mnt", f"--pid={self._namespaces}/pid_for_children"]
        return ["nsenter", *spaces, *command]

    def _kubelet(self) -> list[str]:
        user = f"system:node:{self.name}"
        return [
            str(self._tools.kubelet),
            f"--config={self._folder / KUBELET_CONFIG}",
            f"--kubeconfig={self._plane.kubeconfig_of(user, organization='system:nodes')}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--node-labels=node.kubernetes.io/instance-type={INSTANCE_TYPE}",
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki",
        ]

    def _run(self, name: str, command: Sequence[str]) -> None:
        component = Component(name, command, self._folder)
        self._components[name] = component
        self._plane.start_component(component)

    def _await(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            for component in self._components.values():
                component.check()
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{what}: not after {START_SECONDS} s\n{self.tails()}")
            time.sleep(0.1)

    def _path(self) -> str:
        return f"/api/v1/nodes/{self.name}"

    def _status(self) -> dict[str, Any] | None:
        with suppress(OSError):  # an HTTPError: there is no node yet
            node: dict[str, Any] = json.loads(self._plane.admin("GET", self._path()))
            return node
        return None

    def _takes_pods(self) -> bool:
        node = self._status() or {"status": {}, "spec": {}}
        ready = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}.get("Ready")
        taints = {taint["key"] for taint in node["spec"].get("taints", [])}
        gpus = node["status"].get("allocatable", {}).get("nvidia.com/gpu")
        return ready == "True" and taints == {"nvidia.com/gpu"} and gpus == str(len(GPUS))

    def _remove_node(self) -> None:
        with suppress(OSError):
            self._plane.delete_node(self.name)

    def _first_process(self) -> psutil.Process | None:
        component = self._components.get("first")
        if component is None or component.process is None:
            return None
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(component.process.pid).children()
            return children[0] if children else None
        return None

    def _end_namespace(self) -> None:
        """`unshare` ends after its child, and that one after every process of the namespace."""
        first = self._first_process()
        if first is None:
            return
        first.kill()
        process = self._components["first"].process
        if process is not None:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise ControlPlaneError(f"the node's processes have not ended in {END_SECONDS} s") from error

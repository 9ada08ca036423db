"""Nodes and container logs that KWOK simulates; how their pods proceed is in kwok/pod-stages.yaml."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STAGES = Path(__file__).parent / "kwok" / "pod-stages.yaml"
FAKE_NODE = {"kwok.x-k8s.io/node": "fake"}
GPUS_PER_NODE = 4
CONTAINERS = ("private-contents", "simulator", "agent", "supervisor")


def gpu_node(name: str, gpus: int) -> dict[str, Any]:
    """A simulated g5.12xlarge: 48 CPUs, 192 GiB, `gpus` NVIDIA GPUs."""
    resources = {
        "cpu": "48",
        "memory": "192Gi",
        "ephemeral-storage": "100Gi",
        "pods": "110",
        "nvidia.com/gpu": str(gpus),
    }
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "g5.12xlarge",
        "type": "kwok",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": FAKE_NODE, "labels": labels},
        "status": {"allocatable": resources, "capacity": resources},
    }


def write_logs_config(folder: Path) -> Path:
    """KWOK's configuration that answers for each container name, in any pod, with `<folder>/<container>.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CONTAINERS:
        write_log(folder, name, ())
    logs = [{"containers": [name], "logsFile": str(folder / f"{name}.log")} for name in CONTAINERS]
    kind = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ClusterLogs", "metadata": {"name": "containers"}}
    path = folder / "kwok-logs.yaml"
    path.write_text(json.dumps({**kind, "spec": {"logs": logs}}))
    return path


def write_log(folder: Path, container: str, lines: Sequence[str]) -> None:
    """Replaces the log, in the format of a container runtime."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    (folder / f"{container}.log").write_text("".join(f"{now} stdout F {line}\n" for line in lines))

"""The configuration of the real node's containerd, kubelet and pod network, and the reasons for it."""

import json
from pathlib import Path
from typing import Any

RUNTIME_SOCKET = "/run/containerd/containerd.sock"  # seen by the node only, as is all below these paths
RUNTIME_CONFIG, KUBELET_CONFIG, NETWORKS = "containerd.toml", "kubelet.json", "networks"
# What the kubelet would otherwise set on this machine: the node is shown files with these values instead.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


def containerd_config(sandbox_image: str, runc: str, networks: Path, plugins: Path) -> str:
    """For containerd 1.6 and 1.7, whose sections are named alike."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{RUNTIME_SOCKET}"
[{cri}]
sandbox_image = "{sandbox_image}"
restrict_oom_score_adj = true # lowering it takes CAP_SYS_RESOURCE
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
[{cri}.cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"
"""


def network_config(bridge: str, subnet: str) -> str:
    """Pods on one bridge, without a gateway: they reach this machine's address on it, and nothing else."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": False, "ipMasq": False, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})


def kubelet_config(address: str, port: int, authority: Path, cgroup: str, files: int) -> dict[str, Any]:
    """`cgroup`: the root of its pods' groups; `files`: how many open files this machine grants a process."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority)}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{RUNTIME_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,  # lowering it takes CAP_SYS_RESOURCE
        "maxOpenFiles": files,
        "serializeImagePulls": False,
        # A developer's disk may be nearly full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # As a GPU node's, so that no other test's pod comes here.
        "registerWithTaints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    }

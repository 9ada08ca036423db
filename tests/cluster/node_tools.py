"""What a machine needs to run the real node, and the few commands that the node is set up with."""

import ipaddress
import json
import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from binaries import MissingBinariesError, ensure_binaries
from processes import ControlPlaneError

CGROUPS = Path("/sys/fs/cgroup")
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "runc", "ip", "mount", "unshare", "nsenter")
_PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
_PLUGINS = ("bridge", "host-local", "loopback")
_MARK = re.compile(r"lbn([0-9]+)-[0-9a-f]{4}")
# In namespaces that end with it: mounts, a bridge and pairs of virtual links.
_TRIAL = "mount -t tmpfs tmpfs /run && ip link add b0 type bridge && ip link add v0 type veth peer name v1"


class NoNodeHereError(Exception):
    """This machine cannot run the node; the text says what is missing."""


@dataclass(frozen=True)
class Tools:
    """Paths of what the node is made of."""

    kubelet: Path
    containerd: str
    runc: str
    plugins: Path


def find_tools() -> Tools:
    """Raises NoNodeHereError; builds the kubelet where it is not cached."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise NoNodeHereError("a real node needs root")
    missing = [name for name in _PROGRAMS if not _which(name)]
    folders = [Path(folder) for folder in _PLUGIN_FOLDERS if all(Path(folder, name).exists() for name in _PLUGINS)]
    if not folders:
        missing.append("containernetworking-plugins")
    if missing:
        raise NoNodeHereError(f"a real node needs {', '.join(missing)}")
    _require_rights()
    try:
        kubelet = ensure_binaries(["kubelet"]) / "kubelet"
    except MissingBinariesError as error:
        raise NoNodeHereError(f"a real node needs a kubelet: {error}") from error
    return Tools(kubelet, _which("containerd"), _which("runc"), folders[0])


def cgroup_hierarchies() -> list[Path]:
    """Those of version 1, or the one of version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    found = CGROUPS.iterdir() if CGROUPS.exists() else ()
    return [path for path in found if not path.is_symlink() and (path / "cgroup.procs").exists()]


def new_mark() -> str:
    """A name for what a node of this process leaves outside its namespaces; short enough for a network link."""
    return f"lbn{os.getpid()}-{secrets.token_hex(2)}"


def remove_marked(mark: str) -> None:
    """The bridge and the control groups of a node whose processes have ended. Raises OSError where one is in use."""
    run_tool("ip", "link", "delete", mark, check=False)
    for hierarchy in cgroup_hierarchies():
        root = hierarchy / mark
        for path in sorted(root.rglob("*/"), reverse=True):  # children before their parents
            path.rmdir()
        if root.exists():
            root.rmdir()


def remove_leftovers() -> None:
    """What nodes have left whose test run was killed."""
    links = [str(link["ifname"]) for link in json.loads(run_tool("ip", "-json", "link"))]
    groups = [path.name for hierarchy in cgroup_hierarchies() for path in hierarchy.glob("lbn*")]
    for mark in {*links, *groups}:
        owner = _MARK.fullmatch(mark)
        if owner and not Path("/proc", owner[1]).exists():
            remove_marked(mark)


def run_tool(program: str, *arguments: str, check: bool = True) -> str:
    """Its output. Raises ControlPlaneError where it fails, with its words."""
    answer = subprocess.run([_which(program), *arguments], capture_output=True, text=True, check=False)
    if check and answer.returncode:
        raise ControlPlaneError(f"{program} {' '.join(arguments)}: {answer.stderr.strip()}")
    return answer.stdout


def free_subnet() -> ipaddress.IPv4Network:
    """A private /24 that no address of this machine is in."""
    links = json.loads(run_tool("ip", "-json", "-4", "address"))
    taken = [ipaddress.ip_address(each["local"]) for link in links for each in link["addr_info"]]
    for number in range(secrets.randbelow(128), 256):
        subnet = ipaddress.IPv4Network(f"10.231.{number}.0/24")
        if not any(address in subnet for address in taken):
            return subnet
    raise ControlPlaneError("no free subnet below 10.231.0.0/16")


def _require_rights() -> None:
    spaces = ["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
    try:
        run_tool("unshare", *spaces, "sh", "-c", _TRIAL)
    except ControlPlaneError as error:
        raise NoNodeHereError(f"a real node needs namespaces, mounts and bridges: {error}") from error
    hierarchies = cgroup_hierarchies()
    if not hierarchies or not all(os.access(path, os.W_OK) for path in hierarchies):
        raise NoNodeHereError(f"a real node needs control groups that it may write below {CGROUPS}")


def _which(name: str) -> str:
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(folders)) or ""

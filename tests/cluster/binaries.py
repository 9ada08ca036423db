"""The control plane's binaries: built once from their published Go modules, cached outside the tree.

`python tests/cluster/binaries.py [name ...]` builds (default: what `ControlPlane` needs) and prints their folder.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MODULES = Path(__file__).parent / "controlplane"

# binary -> (folder of its go.mod, package)
PACKAGES = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kwok": ("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "kubelet": ("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


class MissingBinariesError(Exception):
    """There is no cached build and nothing to build with; the text says what is missing."""


def kubernetes_version() -> str:
    """The version that go.mod pins, e.g. `v1.34.4`."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULES / "kubernetes/go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise MissingBinariesError("controlplane/kubernetes/go.mod does not require k8s.io/kubernetes")
    return found[1]


def ensure_binaries(names: Sequence[str] = CONTROL_PLANE) -> Path:
    """The folder that holds the binaries `names`; builds those that the cache lacks, one process at a time.

    Raises MissingBinariesError where one is missing and Go is not installed, CalledProcessError where a build fails.
    """
    if (cached := _find(names)) is not None:
        return cached
    go = shutil.which("go")
    if go is None:
        raise MissingBinariesError(f"no Go toolchain on PATH and no cached build of {', '.join(names)} in {_cache()}")
    folder = _cache() / f"{_modules_hash()}-{_go_version(go)}" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / "lock"):
        for name in names:
            if not (folder / name).exists():
                _build(go, name, folder / name)
    return folder


def _find(names: Sequence[str]) -> Path | None:
    """A build that another Go version made serves as well, so that a machine without Go can use a copied cache."""
    for folder in sorted(_cache().glob(f"{_modules_hash()}-*/bin")):
        if all((folder / name).exists() for name in names):
            return folder
    return None


def _build(go: str, name: str, target: Path) -> None:
    folder, package = PACKAGES[name]
    partial = target.with_suffix(".partial")
    print(f"building {name} from its Go modules (minutes, once)", file=sys.stderr, flush=True)
    flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", _linker_flags(folder), "-o", str(partial)]
    environment = os.environ | {"CGO_ENABLED": "0"}
    subprocess.run(
        ["nice", "-n", "19", go, "build", *flags, package], cwd=MODULES / folder, env=environment, check=True
    )
    partial.replace(target)


def _linker_flags(folder: str) -> str:
    if folder != "kubernetes":
        return "-s -w"
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    # Without these the server calls itself v0.0.0-master, and clients and feature gates compare against that.
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())])


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "leaderboard-flows" / "control-plane"


def _modules_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(MODULES.glob("*/go.*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _go_version(go: str) -> str:
    answer = subprocess.run(
        [go, "env", "GOVERSION"], cwd=MODULES / "kubernetes", capture_output=True, text=True, check=True
    )
    return answer.stdout.split()[0]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PACKAGES))
    try:
        print(ensure_binaries(parser.parse_args().names or CONTROL_PLANE))
    except MissingBinariesError as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()

"""Container images for the real node, made of this machine's own Python, bash and coreutils: no registry is needed.

The stand-ins are at the paths where the templates expect CARLA, `nvidia-smi` and the evaluator, so the Job's commands
run as they are. Layers are plain tar files, in the folder that `registry.py` serves.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
COREUTILS = ("cat", "chmod", "cp", "env", "id", "ls", "mkdir", "mv", "rm", "sleep", "tee", "touch")
SUPERVISORS_DISTRIBUTIONS = ("boto3", "pydantic")  # and what they require
# Python's own tests and windows, and all of AWS but S3.
_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|distutils|harness-packages|config-3[^/]*)(/|$)"
    r"|/lib-dynload/(_tkinter|_test|_ctypes_test|xxlimited)|/botocore/data/(?!s3/)[^/]+/"
)
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)

NVIDIA_SMI = b"#!/bin/bash\necho 0 # the index of the only GPU\n"
CARLA = b"""#!/bin/bash
for argument in "$@"; do [[ "$argument" == -carla-rpc-port=* ]] && export CARLA_PORT="${argument#*=}"; done
exec python3 -u -m local_jobs.standin_simulator
"""
EVALUATOR = b'import runpy\n\nrunpy.run_module("local_jobs.standin_agent", run_name="__main__")\n'
USERS = b"root:x:0:0::/root:/bin/bash\ncarla:x:1000:1000::/home/carla:/bin/bash\n"


@dataclass(frozen=True)
class File:
    """A file of a layer: `path` in the image, without a leading slash; bytes, a file to copy, or a link's target."""

    path: str
    content: bytes | Path | str
    mode: int = 0o644


class ImageFolder:
    """Blobs by digest, and manifests by `<repository>:<tag>`."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._blobs.mkdir(parents=True)
        self._manifests: dict[str, str] = {}

    def blob(self, digest: str) -> Path | None:
        path = self._blobs / digest
        return path if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) and path.exists() else None

    def digest_of(self, image: str) -> str | None:
        return self._manifests.get(image)

    def add_layer(self, files: Iterable[File]) -> dict[str, Any]:
        """The layer's descriptor."""
        path = self._blobs / "new"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for file in files:
                _add(archive, file)
        with path.open("rb") as handle:
            digest = f"sha256:{hashlib.file_digest(handle, 'sha256').hexdigest()}"
        size = path.stat().st_size
        path.replace(self._blobs / digest)
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}

    def add_image(self, name: str, layers: Sequence[Mapping[str, Any]], **config: Any) -> None:
        """`config`: what OCI's image specification calls so, e.g. Env and Cmd."""
        described = {
            "architecture": _architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self._add_json("application/vnd.oci.image.config.v1+json", described),
            "layers": list(layers),
        }
        self._manifests[name] = self._add_json(MANIFEST_TYPE, manifest)["digest"]

    def _add_json(self, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}


@dataclass(frozen=True)
class AgentImage:
    """demo/agent:`tag`; the tag may be one of local_jobs/demo_images.py, any other is steady."""

    tag: str
    route_seconds: float = 1.0
    version: str = "2.0"


def make_images(folder: Path, agents: Sequence[AgentImage]) -> ImageFolder:
    """Everything that a shard's pod needs.

    Raises CalledProcessError where `ldd` fails, FileNotFoundError where a tool of COREUTILS is missing.
    """
    images = ImageFolder(folder)
    base = images.add_layer(_base())
    path = "PATH=/usr/local/bin:/usr/bin"
    images.add_image("pause:1", [base], Env=[path], Cmd=["sleep", "infinity"])
    supervisor = [
        images.add_layer(_with_libraries(_distributions())),
        images.add_layer(_packages("app", "evaluation", "aws_api", "shard_pod", "k8s_jobs")),
    ]
    images.add_image("logcopy:1", [base, *supervisor], Env=[path, "PYTHONPATH=/app"])
    simulator = [*_packages("app", "local_jobs"), *_carla()]
    images.add_image("simulator:1", [base, images.add_layer(simulator)], Env=[path, "PYTHONPATH=/app"])
    evaluator = [
        *_packages("leaderboard", "local_jobs"),
        File("leaderboard/leaderboard/leaderboard_evaluator.py", EVALUATOR),
    ]
    roots = ["LEADERBOARD_ROOT=/leaderboard", "SCENARIO_RUNNER_ROOT=/etc", "CARLA_PYTHON_API_ROOT=/etc"]  # any folder
    images.add_image("leaderboard:1", [base, images.add_layer(evaluator)], Env=[path, *roots])
    for agent in agents:
        name = f"demo/agent:{agent.tag}"
        plays = [
            f"AGENT_IMAGE={name}",
            f"LEADERBOARD_VERSION={agent.version}",
            f"STANDIN_ROUTE_SECONDS={agent.route_seconds}",
        ]
        images.add_image(name, [base], Env=[path, *plays])
    return images


def _base() -> Iterator[File]:
    version = f"python3.{sys.version_info.minor}"
    interpreter = Path(sys.executable).resolve()
    yield from (File(name, f"usr/{name}") for name in ("bin", "lib", "lib64"))
    yield File("etc/passwd", USERS)
    yield from (File(f"usr/local/bin/{name}", version) for name in ("python", "python3"))
    library = _tree(Path(sysconfig.get_paths()["stdlib"]), f"usr/local/lib/{version}")
    programs = [File(f"usr/bin/{name}", _program(name), 0o755) for name in ("bash", *COREUTILS)]
    yield File("usr/bin/sh", "bash")
    yield from _with_libraries([*programs, File(f"usr/local/bin/{version}", interpreter, 0o755), *library])


def _with_libraries(files: Iterable[File]) -> Iterator[File]:
    binaries = []
    for file in files:
        yield file
        if isinstance(file.content, Path) and (file.mode == 0o755 or file.content.suffix == ".so"):
            binaries.append(file.content)
    yield from _libraries(binaries)


def _libraries(binaries: Sequence[Path]) -> Iterator[File]:
    """What they are linked with: the loader where programs expect it, the rest where Debian's loader looks."""
    answer = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=True)
    found = {Path(match) for match in _LIBRARY.findall(answer.stdout)}
    home = next(path.parent for path in found if path.name.startswith("libc.so"))
    for path in sorted(found, key=lambda path: path.name):
        folder = path.parent if path.name.startswith("ld-") else home
        yield File(_below_usr(folder / path.name), path.resolve(), 0o755)


def _below_usr(path: Path) -> str:
    """/lib/x is /usr/lib/x: the image merges them, as Debian does."""
    return str(path if path.parts[1] == "usr" else Path("/usr", *path.parts[1:])).lstrip("/")


def _carla() -> tuple[File, ...]:
    return File("home/carla/CarlaUE4.sh", CARLA, 0o755), File("usr/bin/nvidia-smi", NVIDIA_SMI, 0o755)


def _distributions() -> Iterator[File]:
    names, wanted = set(), list(SUPERVISORS_DISTRIBUTIONS)
    while wanted:
        name = wanted.pop()
        if name in names:
            continue
        names.add(name)
        wanted += [re.split(r"[^\w.-]", line)[0] for line in requires(name) or () if "extra ==" not in line]
        for file in distribution(name).files or ():
            path = Path(str(distribution(name).locate_file(file)))
            if ".." not in file.parts and path.is_file() and not _LEFT_OUT.search(f"/{file}"):
                yield File(f"app/{file}", path)


def _packages(folder: str, *names: str) -> Iterator[File]:
    for name in names:
        yield from _tree(ROOT / name, f"{folder}/{name}")


def _tree(source: Path, target: str) -> Iterator[File]:
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not _LEFT_OUT.search(f"/{relative}"):
            yield File(f"{target}/{relative}", path)


def _add(archive: tarfile.TarFile, file: File) -> None:
    if isinstance(file.content, Path):
        entry = archive.gettarinfo(file.content, file.path)
        entry.type, entry.linkname = tarfile.REGTYPE, ""  # a second name of a file is a copy of it
        entry.size = file.content.stat().st_size
    else:
        entry = tarfile.TarInfo(file.path)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = file.mode
    if isinstance(file.content, str):
        entry.type, entry.linkname = tarfile.SYMTYPE, file.content
        archive.addfile(entry)
    elif isinstance(file.content, Path):
        with file.content.open("rb") as content:
            archive.addfile(entry, content)
    else:
        entry.size = len(file.content)
        archive.addfile(entry, io.BytesIO(file.content))


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not on PATH")
    return Path(found).resolve()


def _architecture() -> str:
    machine = sysconfig.get_platform().rpartition("-")[2]
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)

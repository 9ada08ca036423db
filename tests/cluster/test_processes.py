"""The control plane leaves no process behind, and says which of its components failed. Needs no cluster."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from control_plane import ControlPlane
from processes import ControlPlaneError

HERE = Path(__file__).parent


def test_a_component_that_ends_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    binaries = fake_binaries(tmp_path, {"etcd": "echo disk on fire; exit 3", "kube-apiserver": "sleep 60; true"})
    plane = ControlPlane(binaries, tmp_path / "work")

    with pytest.raises(ControlPlaneError, match=r"etcd ended with 3:\s+disk on fire"), plane:
        pass

    assert plane.components == {}
    assert processes_of(tmp_path) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="without setpriv nothing ties a process to its parent")
def test_components_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from processes import Component\n"
        "component = Component('sleeper', ['sleep', '60'], Path(sys.argv[1])); component.start()\n"
        "command = Path(f'/proc/{component.process.pid}/cmdline')\n"
        "while not command.read_text().startswith('sleep'): pass  # setpriv has not tied it to us yet\n"
        "print(component.process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]

    answer = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)

    assert ended(int(answer.stdout))


def fake_binaries(folder: Path, scripts: dict[str, str]) -> Path:
    target = folder / "bin"
    target.mkdir()
    for name, script in scripts.items():
        (target / name).write_text(f"#!/bin/sh\n{script}\n")
        (target / name).chmod(0o755)
    return target


def processes_of(folder: Path) -> list[str]:
    command_lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    return [each for each in command_lines if str(folder) in each]


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            # Where nothing reaps orphans a killed process stays as a zombie.
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False

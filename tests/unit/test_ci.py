"""The forge's workflow, the hooks before a commit and .ci/run do what the Makefile says, on every supported Python."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
SCRIPT = ROOT / ".ci/run"


def supported() -> list[str]:
    """The Pythons of pyproject.toml, e.g. 3.11 to 3.13."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, beyond = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", wanted).groups())  # type: ignore[union-attr]
    return [f"3.{minor}" for minor in range(first, beyond)]


def steps() -> list[dict[str, Any]]:
    [job] = WORKFLOW["jobs"].values()
    return list(job["steps"])


def test_the_workflow_calls_the_script_on_every_supported_python() -> None:
    [job] = WORKFLOW["jobs"].values()
    [run] = [step for step in steps() if "run" in step]

    assert job["strategy"]["matrix"]["python"] == supported()
    assert run["run"] == ".ci/run"
    assert run["env"]["PYTHON"] == "python${{ matrix.python }}"  # what the Makefile makes its environment with
    assert SCRIPT.stat().st_mode & 0o111


def test_what_scripts_and_hooks_call_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"^ *make (\S+)", SCRIPT.read_text(), re.MULTILINE)
    hooks = [hook["entry"] for repo in HOOKS["repos"] for hook in repo["hooks"]]

    assert called == ["check", "test", "cluster-test"]
    assert hooks == ["make check"]
    assert set(called) <= targets

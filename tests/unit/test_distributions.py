"""What production installs: the wheel without the embedded stack, and the command line without its test doubles."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from cli.main import NOT_INSTALLED

ROOT = Path(__file__).resolve().parents[2]


def built(project: Path, folder: Path) -> list[str]:
    """The files of the wheel that hatchling builds of a project's folder, but for its metadata."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=300)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def test_the_wheel_holds_no_test_double_and_all_that_a_deployment_needs(tmp_path: Path) -> None:
    files = built(ROOT, tmp_path)

    assert [name for name in files if name.startswith(("embedded/", "tests/"))] == []
    for needed in ("cli/main.py", "deployments/prefect.yaml", "deployments/aws/queue.yaml", "shard_pod/pair.sh"):
        assert needed in files


def test_the_embedded_stack_is_a_wheel_of_its_own(tmp_path: Path) -> None:
    files = built(ROOT / "embedded", tmp_path)

    assert {name.partition("/")[0] for name in files} == {"embedded"}
    assert {"embedded/__init__.py", "embedded/stack.py", "embedded/evalai_standin/app.py"} <= set(files)
    assert [name for name in files if not name.endswith(".py")] == []


WITHOUT_EMBEDDED = """
import contextlib, io, json, sys
sys.modules["embedded"] = None  # as where it is not installed
from cli.main import main
ended = {}
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as end:
            ended[command] = [end.code, out.getvalue(), err.getvalue()]
print(json.dumps(ended))
"""
EMBEDDED = ("demo", "up")
PRODUCTION = (
    *("bridge", "setup", "doctor", "reconcile", "explain", "merge", "queue dead", "queue redrive"),
    *("status", "watch", "result", "logs", "cancel", "resume", "report", "verify", "standings", "cost", "metrics"),
    *("compute setup", "compute bridge", "compute backlog", "compute post", "compute result"),
)


def test_without_the_embedded_stack_its_commands_say_what_to_install_and_all_others_are_there() -> None:
    words = json.dumps([*EMBEDDED, *(f"{command} --help" for command in PRODUCTION)])

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EMBEDDED, words], cwd=ROOT, capture_output=True, text=True, timeout=100
    )

    assert done.stderr == ""
    ended = json.loads(done.stdout)
    for command in EMBEDDED:
        assert ended.pop(command) == [1, "", f"{NOT_INSTALLED}\n"]
    for command, (code, out, err) in ended.items():
        assert (code, err) == (0, ""), command
        assert "Usage: leaderboard" in out
    assert len(ended) == len(PRODUCTION)

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from deployments import cli
from deployments.demo import finish
from deployments.progress import Progress, ShardProgress
from deployments.progress_view import PlainLines
from evaluation.shards import ShardState
from evaluation.submission import SubmissionStatus

HEAVY = ("prefect", "boto3", "moto", "requests")


def run_cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deployments.cli", *arguments]
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def imported_by(*arguments: str) -> set[str]:
    """The top-level packages in sys.modules after the command."""
    code = (
        "import sys\nfrom deployments import cli\n"
        f"sys.argv = ['leaderboard', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--help",), ("merge", "--help")])
def test_light_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments).isdisjoint(HEAVY)


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = run_cli("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert [name for name in cli.COMMANDS if name not in done.stdout] == []


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    done = run_cli("submit", "--phase", "leaderboard-10-MAP", cwd=tmp_path)
    assert done.returncode == 2
    assert "--image" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("cancel", "3"), ("resume", "3"), ("submit", "--phase", "x-Y", "--image", "demo/agent:fast")],
)
def test_without_a_stack_one_sentence_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "No stack is running here: looked in .leaderboard. Start one in another terminal: make up\n"


def a_progress(evalai: SubmissionStatus, done: int, row: dict[str, str] | None = None) -> Progress:
    shard = ShardProgress(0, ShardState.DRIVING, done, 5, "drives route 3")
    return Progress(7, "leaderboard-20-SENSORS", 1, evalai, row or {}, (shard,))


@pytest.mark.parametrize(
    ("status", "done", "metrics", "code", "line"),
    [
        (
            SubmissionStatus.FINISHED, 5, {"Driving score": 43.21}, 0,
            "FINISHED submission=7 phase=leaderboard-20-SENSORS routes=5/5 shards=1 driving_score=43.210 "
            "evalai=finished seconds=12\n",
        ),
        (
            SubmissionStatus.FAILED, 3, {}, 1,
            "FAILED submission=7 phase=leaderboard-20-SENSORS routes=3/5 shards=1 driving_score=none "
            "evalai=failed seconds=12\n",
        ),
        (
            SubmissionStatus.FINISHED, 4, {"Driving score": 43.21}, 1,
            "FINISHED submission=7 phase=leaderboard-20-SENSORS routes=4/5 shards=1 driving_score=43.210 "
            "evalai=finished seconds=12\n",
        ),
    ],
)  # fmt: skip
def test_the_last_line_and_the_exit_code(
    status: SubmissionStatus, done: int, metrics: dict[str, float], code: int, line: str
) -> None:
    output = StringIO()
    assert finish(output, a_progress(status, done), metrics, 12.3) == code
    assert output.getvalue() == line


@pytest.mark.parametrize(
    ("status", "row", "over"),
    [
        (SubmissionStatus.RUNNING, {"status": "running"}, False),
        (SubmissionStatus.FINISHED, {"status": "running"}, False),  # the ledger follows
        (SubmissionStatus.FINISHED, {"status": "finished"}, True),
        (SubmissionStatus.CANCELLED, {"status": "running"}, False),  # its shards are being stopped
        (SubmissionStatus.CANCELLED, {}, True),
    ],
)
def test_over_means_that_evalai_and_the_ledger_agree(status: SubmissionStatus, row: dict[str, str], over: bool) -> None:
    assert a_progress(status, 0, row).over is over


def test_plain_lines_say_only_what_is_new() -> None:
    output = StringIO()
    lines = PlainLines(Console(file=output, width=200))
    for done in (1, 1, 2):
        lines.show(a_progress(SubmissionStatus.RUNNING, done))
    shown = [line.partition(" s  ")[2].strip() for line in output.getvalue().splitlines()]
    assert shown == [
        "submission 7: running, 1/5 routes",
        "shard 0: driving, 1/5 routes, drives route 3",
        "submission 7: running, 2/5 routes",
        "shard 0: driving, 2/5 routes, drives route 3",
    ]

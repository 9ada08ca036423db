import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from cli import main as main_module
from cli.commands import COMMANDS, COMMANDS_OF, GROUPS
from cli.exit_codes import ExitCode
from cli.main import app, main
from cli.progress_view import PlainLines
from cli.submission_outcome import finish
from cli.submission_progress import Progress, in_time
from deployments.settings import Settings
from embedded.stack_lock import folder_errors
from evaluation.errors import DeadlineExceeded, InvalidConfiguration
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.shards import ShardState
from evaluation.submission.model import SubmissionStatus

HEAVY = {"prefect", "boto3", "moto", "requests"}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, in an empty folder without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LEADERBOARD_{name.upper()}", raising=False)

    def run(*words: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


def test_commands_import_only_what_they_need(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cli.main import main\n"
        "for words in (['--help'], ['merge', '--help'], ['env']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as ended:\n"
        "        packages = {name.partition('.')[0] for name in sys.modules}\n"
        f"        print('ended:', ended.code, *sorted(packages.intersection({HEAVY!r})))\n"
    )
    environment = {"PYTHONPATH": str(Path(main_module.__file__).parents[1])}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )

    ended = [line for line in done.stdout.splitlines() if line.startswith("ended:")]
    assert ended == ["ended: 0", "ended: 0", "ended: 1"], done.stderr


def test_the_module_is_a_program(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(main_module.__file__).parents[1])}

    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "merge"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'leaderboard: Command "merge" parameter --routes requires an argument.\n'
        "Usage: leaderboard merge --routes STR --output PATH [OPTIONS] [ARGS...]. More: leaderboard merge --help\n"
    )


def test_a_reader_that_leaves_early_ends_a_command_without_a_trace(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cli.main", "--version"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)

    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "")


def test_help_lists_every_command(leaderboard: Run) -> None:
    shown = leaderboard("--help")
    assert shown.code == 0
    assert [name for name in (*COMMANDS, *GROUPS) if name not in shown.out] == []


def test_help_groups_commands_by_who_needs_them_with_examples(leaderboard: Run) -> None:
    shown = leaderboard("--help").out
    headings = [shown.index(group.name) for group in COMMANDS_OF]
    assert headings == sorted(headings)
    assert "leaderboard watch 7" in shown
    assert f"{ExitCode.TIME_IS_UP.value}:" in shown


def test_the_help_of_a_command_is_its_whole_text_with_an_example(leaderboard: Run) -> None:
    shown = leaderboard("logs", "--help").out
    assert "when it has grown by a tenth" in shown
    assert "Example: leaderboard logs 7 --shard 2 --process agent --follow" in shown


def test_every_example_is_one_that_the_command_takes() -> None:
    for name, command in COMMANDS.items():
        words = shlex.split(command.example)
        assert words[0] == name
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_complete_in_a_shell(leaderboard: Run, shell: str) -> None:
    script = leaderboard("completion", shell).out
    assert all(word in script for word in ("standings", "redrive", "wait-seconds"))


def test_the_version_is_the_installed_one(leaderboard: Run) -> None:
    shown = leaderboard("--version")
    assert (shown.code, shown.out, shown.err) == (0, f"{version('leaderboard-flows')}\n", "")


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_state_folder_that_cannot_be_used_is_one_sentence(
    leaderboard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEADERBOARD_STATE_DIR", str(tmp_path / "file" / "state"))

    ended = leaderboard(command)

    assert ended.code == 1
    assert ended.err == (
        f"The state folder {tmp_path / 'file' / 'state'} cannot be used: Not a directory. "
        "Set LEADERBOARD_STATE_DIR to a folder on a disk with room that you may write to.\n"
    )


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda folder: (folder / "logs").touch(), "File exists: {folder}/logs"),
        (lambda folder: (folder / "stack.json").mkdir(), "Is a directory: {folder}/stack.new"),
    ],
)
def test_what_lies_in_the_way_in_a_state_folder_is_named(
    leaderboard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path], None], why: str
) -> None:
    prepare(tmp_path)
    monkeypatch.setenv("LEADERBOARD_STATE_DIR", str(tmp_path))

    ended = leaderboard("up")

    assert ended.code == 1
    assert ended.err.startswith(
        f"The state folder {tmp_path} cannot be used: {why.format(folder=tmp_path)}. Set LEADER"
    )


def test_a_full_disk_is_named_and_an_error_of_a_connection_is_not_taken_for_one(tmp_path: Path) -> None:
    full, cut = OSError(errno.ENOSPC, "No space left on device"), ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(InvalidConfiguration, match=r"No space left on device\. Set LEADER"), folder_errors(tmp_path):
        raise full
    with pytest.raises(ConnectionResetError), folder_errors(tmp_path):
        raise cut


MERGE = ("merge", "a.json", "--output", "merged.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), 'Unknown command "nonsense"'),
        (("status", "-1"), "Must be > 0"),
        (("explain", "-1"), "Must be > 0"),
        (("cancel", "0"), "Must be > 0"),
        (("submit", "--phase", "leaderboard-10-MAP"), "--image requires an argument"),
        (("submit", "--phase", "x-Y", "--image", "i", "--wait", "--wait-seconds", "0"), "--wait-seconds"),
        (("resume", "3", "--wait", "--wait-seconds", "nan"), "--wait-seconds"),
        (("resume", "3", "--wiat"), "Unknown option: --wiat"),
        (("status", "seven"), 'unable to convert "seven" into int'),
        (("cancel",), "SUBMISSION requires an argument"),
        (MERGE, "--routes requires an argument"),
        ((*MERGE, "--routes"), "--routes requires an argument"),
        ((*MERGE, "--routes", "0-3", "--repetitions", "x"), '--repetitions: unable to convert "x" into int'),
        ((*MERGE, "--routes", "0-3", "--leaderboard-version", "3"), "--leaderboard-version"),
        (("merge", "--routes", "0-3", "--output", "merged.json"), "No result files are given"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(leaderboard: Run, words: tuple[str, ...], said: str) -> None:
    ended = leaderboard(*words)

    assert (ended.code, ended.out) == (2, "")
    what, usage = ended.err.splitlines()
    assert what.startswith("leaderboard: ")
    assert said in what
    right = "leaderboard" if words[0] == "nonsense" else f"leaderboard {words[0]}"
    assert usage.startswith(f"Usage: {right} ")
    assert usage.endswith(f". More: {right} --help")


@pytest.mark.parametrize(
    "words",
    [("status",), ("watch", "3"), ("result", "3"), ("logs", "3"), ("cancel", "3"), ("resume", "3"), ("explain", "3")],
)
def test_without_an_installation_one_sentence_says_so(
    leaderboard: Run, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        ended = leaderboard(*words)

    assert ended.code == 1
    assert ended.err.startswith("There is no installation to ask: no stack is running in ")
    assert ended.err.endswith("Start a stack with `make up`, or set PREFECT_API_URL to your Prefect server's.\n")


def test_without_a_stack_nothing_is_submitted(leaderboard: Run) -> None:
    ended = leaderboard("submit", "--phase", "x-Y", "--image", "demo/agent:fast")

    assert ended.code == 1
    assert ended.err == "No stack is running here: looked in .leaderboard. Start one in another terminal: make up\n"


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
        (SubmissionStatus.FINISHED, {"status": "finished"}, False),  # its report's pages are being made
        (SubmissionStatus.FINISHED, {"status": "finished", "end-time": "2026-01-01"}, True),
        (SubmissionStatus.RUNNING, {"status": "held", "end-time": "2026-01-01"}, True),
        (SubmissionStatus.CANCELLED, {"status": "running"}, False),  # its shards are being stopped
        (SubmissionStatus.CANCELLED, {}, True),
    ],
)
def test_over_means_that_evalai_and_the_ledger_agree(status: SubmissionStatus, row: dict[str, str], over: bool) -> None:
    assert a_progress(status, 0, row).over is over


def snapshots(*statuses: SubmissionStatus) -> Iterator[Progress]:
    running = SubmissionStatus.RUNNING
    ends = {status: {} if status is running else {"end-time": "2026-01-01"} for status in statuses}
    return (a_progress(status, 1, {"status": status.value, **ends[status]}) for status in statuses)


def test_waiting_ends_with_the_submission_however_late() -> None:
    clock = iter((100.0, 105.0, 200.0)).__next__
    running, finished = SubmissionStatus.RUNNING, SubmissionStatus.FINISHED

    seen = list(in_time(snapshots(running, finished), 10, "a cause", "a remedy", clock))

    assert [each.evalai for each in seen] == [running, finished]


def test_waiting_ends_at_its_limit_and_says_what_was_seen_last() -> None:
    clock = iter((100.0, 110.0, 110.1)).__next__
    seen = in_time(snapshots(*[SubmissionStatus.RUNNING] * 9), 10, "a cause", "A remedy.", clock)

    assert [next(seen).routes_done for _ in range(2)] == [1, 1]
    with pytest.raises(DeadlineExceeded) as caught:
        next(seen)

    assert str(caught.value) == "Submission 7 is still running after 10 s: a cause. A remedy."


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

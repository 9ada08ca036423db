"""A user's function in a process of its own: what comes back, and that nothing of it stays."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from compute_client.function_process import ProcessDied, run_function
from compute_client.job import JobError
from evaluation.errors import InvalidConfiguration
from tests.waiting import PATIENCE_SECONDS, eventually, runs

HERE = "tests.compute_functions"


def run(function: str, body: object = None, limit: float = 60) -> str | JobError:
    return asyncio.run(run_function(f"{HERE}:{function}", "job-1", json.dumps(body), limit))


def failure(function: str, body: object = None, limit: float = 60) -> JobError:
    outcome = run(function, body, limit)
    assert isinstance(outcome, JobError)
    return outcome


def processes_in(file: Path) -> list[psutil.Process]:
    eventually(file.exists)
    return [psutil.Process(int(pid)) for pid in file.read_text().split()]


def test_the_function_gets_body_and_id() -> None:
    assert run("answer", {"number": 4}) == '{"answer": 42, "id": "job-1"}'


def test_json_comes_back_as_it_went() -> None:
    body = {"text": "Grüße\n\u2028 ∞", "numbers": [1, 2.5, -0.0, 10**30], "nothing": None, "large": "x" * 300_000}
    assert json.loads(str(run("echo", body))) == body


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("name_of_a_file", "ValueError", "cannot parse caf?.txt"),
        ("unprintable", "Unprintable", "(the error cannot be printed: RuntimeError)"),
        ("ends_when_printed", "EndsWhenPrinted", "(the error cannot be printed: SystemExit)"),
    ],
)
def test_an_error_that_cannot_be_written_down_is_still_the_functions_error(
    function: str, kind: str, message: str
) -> None:
    error = failure(function).cut()

    assert (error.type, error.message) == (kind, message)
    assert "compute_functions.py" in error.trace


def test_a_result_that_fails_while_it_is_read_is_the_functions_failure() -> None:
    error = failure("unreadable_result")

    assert (error.type, error.message) == ("KeyError", "the result is not JSON: 'nothing here'")


@pytest.mark.parametrize(
    "ending",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(3)",
        "raise SystemExit('usage')",
        "raise KeyboardInterrupt",
        "import os; os.abort()",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)
def test_a_module_that_ends_the_process_when_it_is_imported_is_a_wrong_deployment(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_when_imported.py").write_text(f"{ending}\ndef answer(body, message_id): return 42\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(InvalidConfiguration, match="ends_when_imported"):
        asyncio.run(run_function("ends_when_imported:answer", "job-1", "null", 60))


def test_a_session_of_its_own_does_not_outlive_the_job(tmp_path: Path) -> None:
    assert run("leave_a_daemon", {"pids": str(tmp_path / "pids")}) == '"done"'

    assert not psutil.pid_exists(int((tmp_path / "pids").read_text()))


def test_the_functions_input_and_output_are_no_channel() -> None:
    assert run("read_input") == '""'


def test_an_exception_is_told_with_its_trace() -> None:
    error = failure("answer", {"numbre": 4})
    assert (error.type, error.message) == ("KeyError", "'number'")
    assert 'body["number"]' in error.trace


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("not_json", "TypeError", "the result is not JSON: Object of type set"),
        ("equal_keys", "ValueError", "the result is not JSON: two keys become '1'"),
        ("leave", "SystemExit", "enough"),
    ],
)
def test_what_else_may_come_out_is_an_error(function: str, kind: str, message: str) -> None:
    error = failure(function)
    assert error.type == kind
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("nonsense", "names no function"),
        (f"{HERE}:absent", "has no attribute 'absent'"),
        ("no.such.module:f", "No module named 'no'"),
        (f"{HERE}:ANSWER", "is a int, no function"),
    ],
)
def test_a_name_that_is_none_is_the_deployments_fault(name: str, cause: str) -> None:
    with pytest.raises(InvalidConfiguration, match=cause):
        asyncio.run(run_function(name, "job-1", "null", 60))


def test_a_process_that_dies_has_no_outcome() -> None:
    with pytest.raises(ProcessDied, match=r"compute_functions:die died without a result: signal SIGKILL"):
        run("die")


def test_a_function_over_its_limit_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def limited() -> str | JobError:
        call = asyncio.create_task(run_function(f"{HERE}:hang", "job-1", json.dumps({"pids": str(pids)}), 2))
        return await call

    outcome = asyncio.run(limited())

    assert outcome == JobError("TimeLimit", "the function ran longer than 2 seconds")
    if pids.exists():  # a slow machine may not even have begun
        eventually(lambda: not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split()))


def test_a_cancelled_call_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def cancelled() -> list[psutil.Process]:
        call = asyncio.create_task(run_function(f"{HERE}:hang", "job-1", json.dumps({"pids": str(pids)}), 600))
        found = await asyncio.to_thread(processes_in, pids)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return found

    found = asyncio.run(cancelled())

    assert len(found) == 2
    eventually(lambda: not any(map(runs, found)))


def test_the_function_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import asyncio, json, sys\n"
        "from compute_client.function_process import run_function\n"
        f"asyncio.run(run_function('{HERE}:hang', 'job-1', json.dumps({{'pids': sys.argv[1]}}), 600))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, str(pids)])
    found = processes_in(pids)

    os.kill(caller.pid, signal.SIGKILL)
    caller.wait(PATIENCE_SECONDS)

    eventually(lambda: not any(map(runs, found)))

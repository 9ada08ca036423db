"""Runs a user's function in a process of its own, so that it can block, break or hang without harm to its caller."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path

import psutil

from compute_client.job import JobError
from evaluation.errors import InvalidConfiguration, TransientError

MARKER = "COMPUTE_CLIENT_JOB"  # in the environment of a function's process and of all that it starts
END_SECONDS = 10.0  # until what was killed is gone


class ProcessDied(TransientError):
    """The function's process ended without a result: killed, out of memory, or by its own hand."""


async def run_function(function: str, job_id: str, body: str, limit_seconds: float) -> str | JobError:
    """Call `module:function` with the body, a JSON text: what it returns, a JSON text again, or why it failed.

    A function that takes longer than the limit has failed. Cancelling ends its process, and so does this process's
    death. Raises InvalidConfiguration where there is no such function, ProcessDied.
    """
    with tempfile.TemporaryDirectory(prefix="compute-") as folder:
        outcome, mark = Path(folder) / "outcome.json", f"{job_id}-{uuid.uuid4().hex}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "compute_client.function_main", function, job_id, str(outcome)),
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, MARKER: mark},
            start_new_session=True,  # a process group, so that what the function starts ends with it
        )
        try:
            async with asyncio.timeout(limit_seconds):
                await _feed(process, body)
                code = await process.wait()
        except TimeoutError:
            return JobError("TimeLimit", f"the function ran longer than {limit_seconds:g} seconds")
        finally:
            await asyncio.shield(_end(process, mark))
        return read_outcome(outcome, function, code)


async def _feed(process: asyncio.subprocess.Process, body: str) -> None:
    """Write the body as one line, and leave the pipe open: its end would mean that we are dead."""
    assert process.stdin is not None  # noqa: S101 - asked for
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit code says more
        process.stdin.write(body.encode() + b"\n")
        await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process, mark: str) -> None:
    """Nothing of the function goes on, not even what it started in a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.to_thread(end_marked, mark)
    assert process.stdin is not None  # noqa: S101 - asked for
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


def end_marked(mark: str) -> None:
    """Kill every process that has the mark in its environment, until there is none."""
    while found := [process for process in psutil.process_iter() if _has_mark(process, mark)]:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, END_SECONDS)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == mark
    return False


# A process raises these itself: a broken native library does, whatever the job.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})


def read_outcome(outcome: Path, function: str, code: int) -> str | JobError:
    """What the function's process left; raises ProcessDied, and InvalidConfiguration where it could not be called."""
    try:
        content = json.loads(outcome.read_text("ascii"))
    except (OSError, ValueError) as error:
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise ProcessDied(f"The process of {function} died without a result", cause) from error
    if "misnamed" in content and code < 0 and -code not in _CRASHES:  # killed: out of memory, for one
        raise ProcessDied(f"The process of {function} died while it was imported", signal.Signals(-code).name)
    if "misnamed" in content:
        raise InvalidConfiguration("The function cannot be called", content["misnamed"], "Correct the deployment.")
    if "error" in content:
        return JobError(**content["error"]).cut()  # also without what no log and no table can hold
    return str(content["result"])

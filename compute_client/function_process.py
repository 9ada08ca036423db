"""Runs a user's function in a process of its own, so that it can block, break or hang without harm to its caller."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from compute_client.job import JobError
from evaluation.errors import InvalidConfiguration, TransientError


class ProcessDied(TransientError):
    """The function's process ended without a result: killed, out of memory, or by its own hand."""


async def run_function(function: str, job_id: str, body: str, limit_seconds: float) -> str | JobError:
    """Call `module:function` with the body, a JSON text: what it returns, a JSON text again, or why it failed.

    A function that takes longer than the limit has failed. Cancelling ends its process, and so does this process's
    death. Raises InvalidConfiguration where there is no such function, ProcessDied.
    """
    with tempfile.TemporaryDirectory(prefix="compute-") as folder:
        outcome = Path(folder) / "outcome.json"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "compute_client.function_main", function, job_id, str(outcome)),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # a process group, so that what the function starts ends with it
        )
        try:
            async with asyncio.timeout(limit_seconds):
                await _feed(process, body)
                code = await process.wait()
        except TimeoutError:
            return JobError("TimeLimit", f"the function ran longer than {limit_seconds:g} seconds")
        finally:
            await asyncio.shield(_end(process))
        return _read(outcome, function, code)


async def _feed(process: asyncio.subprocess.Process, body: str) -> None:
    """Write the body as one line, and leave the pipe open: its end would mean that we are dead."""
    assert process.stdin is not None  # noqa: S101 - asked for
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit code says more
        process.stdin.write(body.encode() + b"\n")
        await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of the function goes on, not even what it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    assert process.stdin is not None  # noqa: S101 - asked for
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


def _read(outcome: Path, function: str, code: int) -> str | JobError:
    try:
        content = json.loads(outcome.read_text("ascii"))
    except (OSError, ValueError) as error:
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise ProcessDied(f"The process of {function} died without a result", cause) from error
    if "misnamed" in content:
        raise InvalidConfiguration("The function cannot be called", content["misnamed"], "Mend the deployment.")
    if "error" in content:
        return JobError(**content["error"])
    return str(content["result"])

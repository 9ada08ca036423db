"""Flows for tests of the worker, deployed by name. What happens to them lies in the folder that they are given."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

ENTRYPOINT = "tests.flows.worker_flows"


def note_end(_flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    (Path(run.parameters["folder"]) / f"{run.id}.hook").write_text(f"{state.type.value} {state.name}")


def _begin(folder: Path) -> Path:
    mark = folder / str(flow_run.get_id())
    mark.touch()
    return mark


@flow(on_crashed=[note_end], on_cancellation=[note_end], on_failure=[note_end])
async def waits(folder: Path) -> None:
    """Begins, and ends once the folder has a file `go`."""
    _begin(folder)
    while not (folder / "go").exists():
        await asyncio.sleep(0.02)


@flow(on_crashed=[note_end])
async def exits(folder: Path) -> None:
    _begin(folder)
    sys.exit(3)


@flow(on_failure=[note_end])
async def fails(folder: Path) -> None:
    _begin(folder)
    raise RuntimeError("one run's own fault")


@flow
async def blocks(folder: Path) -> None:
    """Blocks a thread until the folder has a file `go`."""
    _begin(folder)

    def block() -> None:
        while not (folder / "go").exists():
            time.sleep(0.02)

    await asyncio.to_thread(block)


@task
async def speak(word: str, times: int) -> None:
    for number in range(times):
        get_run_logger().info("%s %d", word, number)
        await asyncio.sleep(0)
    await asyncio.to_thread(get_run_logger().info, "%s from a thread", word)


@flow(flow_run_name="says-{word}")
async def talks(folder: Path, word: str) -> None:
    """Logs its word many times, while others do the same."""
    _begin(folder)
    await speak(word, 20)


@flow
async def tells(folder: Path) -> None:
    """Writes what it knows of its surroundings."""
    retries = PREFECT_CLIENT_MAX_RETRIES.value()
    _begin(folder).write_text(f"{retries} {Path.cwd()}")


@flow
def stops_everybody(folder: Path) -> None:
    """No `async def`: it would run in the event loop itself."""

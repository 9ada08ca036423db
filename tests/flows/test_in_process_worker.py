"""The worker type `in-process` on a real Prefect server: what one run does is no other run's business."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_TO_API_BATCH_INTERVAL,
    PREFECT_WORKER_QUERY_SECONDS,
    temporary_settings,
)
from prefect.states import Cancelling
from prefect.workers.base import BaseWorker

from flow_worker.worker import InProcessWorker
from tests.flows.worker_flows import ENTRYPOINT
from tests.waiting import PATIENCE_SECONDS, eventually_in_loop

POLLS_UNTIL_A_WORKER_GIVES_UP = 12  # in a row without an answer: three at each of four intervals
FAST = {PREFECT_WORKER_QUERY_SECONDS: 0.2, PREFECT_LOGGING_TO_API_BATCH_INTERVAL: 0.2}


class Pool:
    """A work pool, deployments in it, and their runs."""

    def __init__(self, client: PrefectClient, folder: Path) -> None:
        self.name = f"pool-{uuid4().hex[:8]}"
        self._client = client
        self._folder = folder

    async def start(
        self, flow: str, entrypoint: str = "", env: dict[str, str] | None = None, **parameters: str
    ) -> UUID:
        """A run of tests.flows.worker_flows.<flow>, or of another entrypoint."""
        flow_id = await self._client.create_flow_from_name(flow.replace("_", "-"))
        deployment = await self._client.create_deployment(
            flow_id,
            f"{flow}-{uuid4().hex[:8]}",
            work_pool_name=self.name,
            entrypoint=entrypoint or f"{ENTRYPOINT}.{flow}",
            job_variables={"env": env or {}},
        )
        values = {"folder": str(self._folder), **parameters}
        return (await self._client.create_flow_run_from_deployment(deployment, parameters=values)).id

    async def run(self, run: UUID) -> FlowRun:
        return await self._client.read_flow_run(run)

    async def ended(self, run: UUID) -> State[Any]:
        """The run's final state, once it has one."""
        return await until(lambda: self._state(run), lambda state: state.is_final())

    async def begun(self, *runs: UUID) -> None:
        await eventually_in_loop(lambda: all((self._folder / str(run)).exists() for run in runs))

    def go(self) -> None:
        (self._folder / "go").touch()

    def hook(self, run: UUID) -> str:
        """What the hook of a run was told, empty where none was called."""
        file = self._folder / f"{run}.hook"
        return file.read_text() if file.exists() else ""

    async def _state(self, run: UUID) -> State[Any]:
        state = (await self.run(run)).state
        assert state is not None
        return state


async def until(read: Callable[[], Awaitable[Any]], enough: Callable[[Any], object]) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not enough(value := await read()):
            await asyncio.sleep(0.05)
    return value


@asynccontextmanager
async def pool(folder: Path, limit: int | None = None, with_worker: bool = True) -> AsyncIterator[Pool]:
    """A work pool with a worker of this type in the test's own process."""
    with temporary_settings(FAST):
        async with get_client() as client:
            new = Pool(client, folder)
            await client.create_work_pool(WorkPoolCreate(name=new.name, type=InProcessWorker.type))
            if not with_worker:
                yield new
                return
            started = asyncio.create_task(
                InProcessWorker(work_pool_name=new.name, limit=limit).start(printer=lambda _: 0)
            )
            try:
                yield new
            finally:
                started.cancel()
                await asyncio.gather(started, return_exceptions=True)


def test_prefect_finds_the_worker_by_its_type() -> None:
    assert BaseWorker.get_worker_class_from_type("in-process") is InProcessWorker


def test_a_run_that_exits_or_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path) as runs:
            waits = await runs.start("waits")
            await runs.begun(waits)
            exits, fails = await runs.start("exits"), await runs.start("fails")
            assert (await runs.ended(exits)).is_crashed()
            assert (await runs.ended(fails)).is_failed()
            assert (runs.hook(exits), runs.hook(fails)) == ("CRASHED Crashed", "FAILED Failed")
            runs.go()
            assert (await runs.ended(waits)).is_completed()

    asyncio.run(scenario())


def test_a_worker_counts_its_runs_for_prometheus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("LEADERBOARD_METRICS_PORT", str(port))

    async def shown(sample: str) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        return sample in answer.text

    async def scenario() -> None:
        async with pool(tmp_path) as runs:
            waits, fails = await runs.start("waits"), await runs.start("fails")
            await runs.begun(waits)
            await until(lambda: shown(f'leaderboard_worker_flow_runs{{pool="{runs.name}"}} 1.0'), bool)
            ended = f'leaderboard_worker_flow_runs_ended_total{{pool="{runs.name}",state="failed"}} 1.0'
            assert (await runs.ended(fails)).is_failed()
            await until(lambda: shown(ended), bool)
            assert await shown(f'leaderboard_worker_last_poll_timestamp_seconds{{pool="{runs.name}"}} 1')
            runs.go()
            assert (await runs.ended(waits)).is_completed()

    asyncio.run(scenario())


def test_blocking_calls_in_threads_keep_no_other_run_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path) as runs:
            blocked = [await runs.start("blocks") for _ in range(10)]
            await runs.begun(*blocked)
            assert (await runs.ended(await runs.start("tells"))).is_completed()
            runs.go()
            assert all([(await runs.ended(run)).is_completed() for run in blocked])

    asyncio.run(scenario())


def test_a_cancellation_reaches_its_run_calls_its_hook_and_leaves_the_others_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path) as runs, get_client() as client:
            unwanted, other = await runs.start("waits"), await runs.start("waits")
            await runs.begun(unwanted, other)
            await client.set_flow_run_state(unwanted, Cancelling())
            assert (await runs.ended(unwanted)).name == "Cancelled"
            assert runs.hook(unwanted) == "CANCELLING Cancelling"
            runs.go()
            assert (await runs.ended(other)).is_completed()

    asyncio.run(scenario())


def test_each_runs_log_holds_its_own_lines_and_no_others(tmp_path: Path) -> None:
    words = ["tick", "tock", "clack"]

    async def scenario() -> None:
        async with pool(tmp_path) as runs, get_client() as client:
            ids = {word: await runs.start("talks", word=word) for word in words}
            for word, run in ids.items():
                assert (await runs.ended(run)).is_completed()
                assert (await runs.run(run)).name == f"says-{word}"

                async def lines(run: UUID = run) -> list[str]:
                    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
                    return [log.message for log in await client.read_logs(wanted)]

                seen = await until(lines, lambda seen, word=word: f"{word} from a thread" in seen)
                own = {line for line in seen if line.startswith(tuple(f"{each} " for each in words))}
                assert own == {*(f"{word} {number}" for number in range(20)), f"{word} from a thread"}

    asyncio.run(scenario())


def test_a_deployments_settings_are_its_runs_own_and_the_process_stays_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path) as runs:
            env = {"PREFECT_CLIENT_MAX_RETRIES": "8", "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG"}  # the latter is left out
            with_settings, without = await runs.start("tells", env=env), await runs.start("tells")
            for run, retries in ((with_settings, "8"), (without, "5")):
                assert (await runs.ended(run)).is_completed()
                assert (tmp_path / str(run)).read_text() == f"{retries} {Path.cwd()}"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"flow": "tells", "env": {"AWS_REGION": "mars-1"}}, "The variable AWS_REGION cannot be set for one run"),
        ({"flow": "tells", "env": {"PREFECT_NO_SUCH": "1"}}, "Prefect has no setting PREFECT_NO_SUCH"),
        ({"flow": "tells", "entrypoint": "flows/x.py:tells"}, "cannot run in a shared process"),
        ({"flow": "tells", "entrypoint": "tests.flows.worker_flows.nothing"}, "cannot be imported"),
        ({"flow": "stops_everybody"}, "it would stop all other runs"),
    ],
)
def test_what_cannot_run_in_a_shared_process_is_refused_with_the_reason(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    async def scenario() -> State[Any]:
        async with pool(tmp_path) as runs:
            return await runs.ended(await runs.start(**options))

    state = asyncio.run(scenario())

    assert state.is_crashed()
    assert reason in (state.message or "")


def test_a_limit_is_kept_and_the_next_run_begins_when_one_has_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path, limit=1) as runs:
            first, second = await runs.start("waits"), await runs.start("tells")
            await runs.begun(first)
            await asyncio.sleep(1)  # several polls; whatever they take, the next line holds
            assert not (tmp_path / str(second)).exists()
            runs.go()
            assert (await runs.ended(second)).is_completed()

    asyncio.run(scenario())


def test_a_server_that_does_not_answer_for_long_ends_neither_worker_nor_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def no_answer(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        raise httpx.ConnectError("refused")

    async def scenario() -> None:
        async with pool(tmp_path) as runs:
            waits = await runs.start("waits")
            await runs.begun(waits)
            with monkeypatch.context() as outage:
                outage.setattr(PrefectClient, "get_scheduled_flow_runs_for_work_pool", no_answer)
                await eventually_in_loop(lambda: asked >= 2 * POLLS_UNTIL_A_WORKER_GIVES_UP)
            runs.go()
            assert (await runs.ended(waits)).is_completed()
            assert (await runs.ended(await runs.start("tells"))).is_completed()

    asyncio.run(scenario())


def worker_process(pool: str, log: Path) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "PREFECT_API_URL": PREFECT_API_URL.value() or "",
        "PREFECT_WORKER_QUERY_SECONDS": "0.2",
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "in-process"]
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


@asynccontextmanager
async def workers(log: Path) -> AsyncIterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(pool: str) -> "subprocess.Popen[bytes]":
        started.append(worker_process(pool, log))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_sigterm_hands_every_run_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pool(tmp_path, with_worker=False) as runs, workers(tmp_path / "log") as start:
            process = start(runs.name)
            several = [await runs.start("waits") for _ in range(3)]
            await runs.begun(*several)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0, (tmp_path / "log").read_text()
            for run in several:
                assert (await runs.ended(run)).name == "Drained"
                assert runs.hook(run) == "CRASHED Drained"

    asyncio.run(scenario())


def test_runs_of_a_worker_that_was_killed_are_reported_by_the_next_one_of_the_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            pool(tmp_path, with_worker=False) as runs,
            workers(tmp_path / "log") as start,
            get_client() as client,
        ):
            process = start(runs.name)
            several = [await runs.start("waits") for _ in range(3)]
            await runs.begun(*several)
            process.kill()
            process.wait()
            await client.set_flow_run_state(several[0], Cancelling())
            other = start(runs.name)
            assert [(await runs.ended(run)).name for run in several] == ["Cancelled", "Crashed", "Crashed"]
            hooks = ["CANCELLING Cancelling", "CRASHED Crashed", "CRASHED Crashed"]
            await eventually_in_loop(lambda: [runs.hook(run) for run in several] == hooks)
            runs.go()
            assert (await runs.ended(await runs.start("waits"))).is_completed()
            assert other.poll() is None

    asyncio.run(scenario())

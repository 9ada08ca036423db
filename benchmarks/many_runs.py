"""What a submission in flight costs: many runs at once in Prefect's process worker and in this project's, side by side.

    python -m benchmarks.many_runs [RUNS_IN_PROCESS] [RUNS_OF_PROCESSES]

For each worker: a Prefect server of its own on an empty database, the real flow with everything around it in memory
(benchmarks/many_runs_flow.py), so many events at once as the bridge publishes them. Prints seconds from the event to
the first Job, memory and CPU for each run beyond the idle worker and server, and the ratios.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
import yaml

from embedded.prefect_server import answers, empty_database, one_connection, prefect_environment
from embedded.stack_plan import free_ports

PROJECT = Path(__file__).resolve().parents[1]
IDLE_SECONDS = 15.0
HOLD_SECONDS = 20.0  # all runs in flight
PATIENCE_SECONDS = 600.0
ROUTES = "<routes>" + "".join(f'<route id="{route}" town="Town12"/>' for route in range(20)) + "</routes>"


@dataclass(frozen=True)
class Measured:
    """Of one worker. Memory in MB, times in seconds; what is per run is beyond the idle worker and server."""

    worker: str
    runs: int
    p50: float  # from the event to the first Job
    p95: float
    last: float
    run_memory: float
    run_worker_cpu: float
    run_server_cpu: float
    idle_memory: float  # of the worker


def measure(worker: str, runs: int) -> Measured:
    """Start server and worker, send the events, wait for the Jobs, hold, release, and wait for the end."""
    with _installation(worker) as bench:
        idle_cpu = bench.cpu()
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        rate = [
            (after - before) / (time.monotonic() - began) for before, after in zip(idle_cpu, bench.cpu(), strict=True)
        ]
        idle_memory = bench.memory()
        before, began = bench.cpu(), time.monotonic()
        sent = time.time()
        bench.publish(runs)
        bench.wait(lambda: len(bench.jobs()) >= runs)
        time.sleep(HOLD_SECONDS)
        memory = bench.memory()
        (bench.folder / "release").touch()
        bench.wait(lambda: bench.completed() >= runs)
        seconds = time.monotonic() - began
        cpu = [
            (after - start - idle * seconds) / runs
            for start, after, idle in zip(before, bench.cpu(), rate, strict=True)
        ]
        waits = sorted(at - sent for at in bench.jobs().values())
    return Measured(
        worker=worker,
        runs=runs,
        p50=statistics.median(waits),
        p95=waits[int(0.95 * (len(waits) - 1))],
        last=waits[-1],
        run_memory=(memory - idle_memory) / runs,
        run_worker_cpu=cpu[0],
        run_server_cpu=cpu[1],
        idle_memory=idle_memory,
    )


def _spent(before: tuple[float, float], after: tuple[float, float]) -> list[float]:
    return [end - start for start, end in zip(before, after, strict=True)]


@dataclass
class Bench:
    """A server and a worker, seen from outside."""

    folder: Path
    api: str
    server: psutil.Process
    worker: psutil.Process

    def publish(self, runs: int) -> None:
        """The events of so many submissions, as the bridge sends them."""
        with requests.Session() as session:
            for pk in range(1, runs + 1):
                message = {"challenge_pk": 1, "phase_pk": 1, "submission_pk": pk, "submitted_image_uri": "demo/agent:1"}
                delivery = {"queue_url": "q", "receipt_handle": f"r-{pk}", "message_id": f"m-{pk}"}
                event = {
                    "event": "leaderboard.submission.received",
                    "resource": {"prefect.resource.id": f"leaderboard.submission.{pk}"},
                    "payload": {"message": message, "delivery": delivery},
                    "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "id": f"00000000-0000-4000-8000-{pk:012d}",
                }
                session.post(f"{self.api}/events", json=[event], timeout=60).raise_for_status()

    def jobs(self) -> dict[int, float]:
        """Submission -> when its first Job was created."""
        file = self.folder / "jobs"
        lines = file.read_text().splitlines() if file.exists() else []
        return {int(pk): float(at) for pk, at in map(str.split, lines)}

    def completed(self) -> int:
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return int(requests.post(f"{self.api}/flow_runs/count", json=body, timeout=60).json())

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE_SECONDS:g} s: see {self.folder}")
            time.sleep(0.5)

    def cpu(self) -> tuple[float, float]:
        """Seconds of the worker, with all that it has started, and of the server."""
        own, server = self.worker.cpu_times(), self.server.cpu_times()
        alive = sum(sum(child.cpu_times()[:2]) for child in self.worker.children(recursive=True))
        return sum(own[:4]) + alive, sum(server[:2])

    def memory(self) -> float:
        """Of the worker with all that it has started: what would be free without them."""
        return sum(each.memory_full_info().uss for each in (self.worker, *self.worker.children(recursive=True))) / 1e6


@contextmanager
def _installation(worker: str) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="many-runs-"))
    (folder / "routes.xml").write_text(ROUTES)
    [port] = free_ports((0,))
    api = f"http://127.0.0.1:{port}/api"
    database = folder / "prefect.db"
    shutil.copyfile(empty_database(), database)
    environment = {
        **os.environ,
        **prefect_environment(api, folder),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": one_connection(database),
        "MANY_RUNS_FOLDER": str(folder),
        "PYTHONPATH": str(PROJECT),
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "prefect", *arguments]
            process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=log)  # noqa: S603
        started.append(process)
        return process

    try:
        server = start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        bench = Bench(folder, api, psutil.Process(server.pid), psutil.Process(server.pid))
        bench.wait(lambda: answers(f"{api}/health"))
        _finished(start("pool", "work-pool", "create", "leaderboard", "--type", worker))
        _finished(start("deploy", "deploy", "--all", "--prefect-file", str(_deployment(folder))))
        bench.worker = psutil.Process(start("worker", "worker", "start", "--pool", "leaderboard", "--type", worker).pid)
        bench.wait(lambda: b"started!" in (folder / "worker.log").read_bytes())
        time.sleep(5)  # what a start does beside
        yield bench
    finally:
        for process in reversed(started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
    shutil.rmtree(folder)


def _finished(process: subprocess.Popen[bytes]) -> None:
    if code := process.wait(PATIENCE_SECONDS):
        raise RuntimeError(f"{process.args!r} ended with {code}")


def _deployment(folder: Path) -> Path:
    """prefect.yaml with this one flow, on the fakes."""
    content = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    [deployment] = [each for each in content["deployments"] if each["name"] == "evaluate-submission"]
    deployment["entrypoint"] = "benchmarks.many_runs_flow.evaluate_submission"
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump({**content, "deployments": [deployment]}))
    return file


def table(measured: list[Measured]) -> str:
    """One column for each worker."""
    rows: dict[str, Callable[[Measured], str]] = {
        "worker": lambda each: each.worker,
        "runs at once": lambda each: str(each.runs),
        "event to first Job, p50 (s)": lambda each: f"{each.p50:.1f}",
        "event to first Job, p95 (s)": lambda each: f"{each.p95:.1f}",
        "event to first Job, last (s)": lambda each: f"{each.last:.1f}",
        "memory a run (MB)": lambda each: f"{each.run_memory:.1f}",
        "worker's CPU a run (s)": lambda each: f"{each.run_worker_cpu:.2f}",
        "server's CPU a run (s)": lambda each: f"{each.run_server_cpu:.2f}",
        "idle worker (MB)": lambda each: f"{each.idle_memory:.0f}",
    }
    return "\n".join(f"{name:32}" + "".join(f"{row(each):>14}" for each in measured) for name, row in rows.items())


def main(arguments: list[str]) -> None:
    in_process, processes = (int(number) for number in [*arguments, "100", "20"][:2])
    measured = [measure(worker, runs) for worker, runs in (("in-process", in_process), ("process", processes)) if runs]
    print(table(measured))
    if len(measured) == 2:
        ours, theirs = measured
        cpu = [each.run_worker_cpu + each.run_server_cpu for each in measured]
        print(f"process / in-process: memory {theirs.run_memory / ours.run_memory:.0f}, CPU {cpu[1] / cpu[0]:.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])

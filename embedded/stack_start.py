"""Starting the parts of the embedded stack: Prefect, AWS, EvalAI, then what needs them."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import local_jobs
from deployments.project_files import deployments_file
from deployments.settings import Settings
from deployments.stack_state import StackState
from embedded import challenge
from embedded.aws import CLUSTERS, EmbeddedAws, routes_location, secrets_of
from embedded.prefect_server import answers, exists, set_reconcile_interval, start_prefect
from embedded.processes import Child, Processes

ROUTES = Path(local_jobs.__file__).parent / "routes"
LEASE_SECONDS = 45  # unless one is set: on one machine a death is known sooner than in a cluster

Say = Callable[[str], None]


class StackStart:
    """The parts, each started as soon as what it needs is there.

    `stages` is for each stage the seconds since the start when it was done; `say` gets a line for each.
    """

    def __init__(
        self, settings: Settings, state: StackState, processes: Processes, tokens: challenge.Tokens, say: Say
    ) -> None:
        self._settings = settings
        self._state = state
        self._tokens = tokens
        self._processes = processes
        self._say = say
        self._began = time.monotonic()
        self.stages: dict[str, float] = {}

    def run(self, external_evalai: bool = False) -> None:
        """Return when all parts are up; raises ServiceUnavailable, with all stopped, where one does not start."""
        pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="start")
        try:
            prefect = pool.submit(self._prefect)
            aws = pool.submit(self._aws)
            evalai = pool.submit(self._external_evalai if external_evalai else self._evalai)
            setup = pool.submit(self._setup, aws)
            deploy, worker = pool.submit(self._deploy, prefect), pool.submit(self._worker, prefect)
            bridge = pool.submit(self._bridge, setup)
            _wait_for(prefect, aws, evalai, setup, deploy, worker, bridge)
            self._processes.check()
        except BaseException:
            self._processes.stop()  # which also ends what the other threads wait for
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _done(self, stage: str) -> None:
        seconds = time.monotonic() - self._began
        self.stages[stage] = seconds
        self._say(f"  {seconds:5.1f} s  {stage}")

    def _prefect(self) -> Child:
        home = self._state.folder / "prefect"
        server = start_prefect(self._settings, self._processes, home, self._state.prefect_url)
        self._done(f"Prefect   {self._state.prefect_url}")
        return server

    def _aws(self) -> None:
        port = self._state.aws_url.rpartition(":")[2]
        child = self._processes.start("aws", [sys.executable, "-m", "embedded.aws_server", "--port", port])
        url = f"{self._state.aws_url}/moto-api/"
        self._processes.wait_until(child, lambda: answers(url), self._settings.start_seconds)
        secrets = secrets_of(self._state.evalai_url, self._tokens.installation, self._state.phases)
        EmbeddedAws(self._state.aws_url, self._state.region).create_all(
            ROUTES, secrets, self._settings.visibility_seconds
        )
        self._done(f"AWS       {self._state.aws_url} (moto)")

    def _external_evalai(self) -> None:
        self._done(f"EvalAI    {self._state.evalai_url} (not started here)")

    def _evalai(self) -> None:
        state = self._state
        limit = self._settings.evalai_requests_per_minute
        config = challenge.standin_config(self._tokens, state.queue_url, state.aws_url, state.region, limit)
        file = self._private_file("evalai.json", config)
        port = state.evalai_url.rpartition(":")[2]
        command = [sys.executable, "-m", "embedded.evalai_standin", "--port", port, "--config", str(file)]
        child = self._processes.start("evalai", command)
        url = f"{state.evalai_url}/api/challenges/{state.challenge_pk}/phases/"
        self._processes.wait_until(child, lambda: answers(url), self._settings.start_seconds)
        self._done(f"EvalAI    {state.evalai_url} (stand-in)")

    def _setup(self, aws: "Future[None]") -> None:
        """Waits for the server by itself, so that its imports overlap with the server's start."""
        aws.result()
        clusters = {cluster: self._cluster(cluster) for cluster in CLUSTERS}
        file = self._private_file("clusters.json", clusters)
        queues = ["--queue-url", self._state.queue_url, "--dead-letter-url", self._state.dead_letter_url]
        wait_seconds = str(self._settings.start_seconds)
        own = self._settings.lease_seconds if "lease_seconds" in self._settings.model_fields_set else LEASE_SECONDS
        lease = ["--lease-seconds", str(own)]
        arguments = ["cli.main", "setup", *queues, *lease, "--clusters", str(file), "--wait", wait_seconds]
        self._run("setup", arguments, "blocks filled from the secrets")

    def _cluster(self, cluster: str) -> Mapping[str, object]:
        """The ComputeCluster block of an embedded cluster."""
        return {
            "leaderboard_version": "1.0" if cluster == "leaderboard-10" else "2.0",
            "compute": {
                "kind": "local",
                "workdir": str(self._state.shards),
                "route_seconds": self._settings.route_seconds,
                "gpu_slots": self._settings.gpu_slots,
            },
            "routes": routes_location(cluster),
            "route_plan": self._settings.route_plan,
            "image_registries": ["demo"],
            "agent_restarts": 2,  # so that demo/agent:always-crash does not get through its five routes
            "hang_seconds": self._settings.hang_seconds,
            "shard_deadline_seconds": 3600,
            "cancel_check_seconds": self._settings.cancel_check_seconds,
            "partial_result_seconds": 15,
        }

    def _deploy(self, prefect: "Future[Child]") -> None:
        self._wait_for_pool(prefect.result(), self._settings.recovery_pool)
        self._run(
            "deploy",
            ["prefect", "deploy", "--all", "--prefect-file", str(deployments_file())],
            "flows deployed",
        )
        set_reconcile_interval(self._state.prefect_api_url, self._settings.reconcile_seconds)

    def _worker(self, prefect: "Future[Child]") -> None:
        self._wait_for_pool(prefect.result())
        self._start_worker("worker", self._state.work_pool, "--limit", str(self._settings.worker_limit))
        self._wait_for_pool(prefect.result(), self._settings.recovery_pool)
        self._start_worker("recovery-worker", self._settings.recovery_pool)

    def _start_worker(self, name: str, pool: str, *options: str) -> None:
        kind = self._settings.work_pool_type
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind]
        self._processes.start(name, [*command, "--name", f"embedded-{name}", *options])

    def _wait_for_pool(self, server: Child, pool: str | None = None) -> None:
        """`setup` makes the pools first: deploying then need not wait for all the blocks."""
        url = f"{self._state.prefect_api_url}/work_pools/{pool or self._state.work_pool}"
        self._processes.wait_until(server, lambda: exists(url), self._settings.start_seconds)

    def _bridge(self, setup: "Future[None]") -> None:
        setup.result()
        self._processes.start("bridge", [sys.executable, "-m", "cli.main", "bridge"])

    def _run(self, name: str, module: Sequence[str], stage: str) -> None:
        self._processes.run(name, [sys.executable, "-m", *module], self._settings.start_seconds)
        self._done(stage)

    def _private_file(self, name: str, content: Mapping[str, object]) -> Path:
        file = self._state.folder / "tmp" / name
        file.touch(mode=0o600)
        file.write_text(json.dumps(content, indent=2), "utf-8")
        return file


def _wait_for(*futures: "Future[Any]") -> None:
    """Return when all are done; raise the first error at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()

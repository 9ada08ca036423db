"""The embedded stack: everything that production has, on this machine, each part behind its real interface."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import local_jobs
from deployments.project_files import deployments_file
from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS, StackState, write_state
from embedded import challenge
from embedded.aws import (
    CLUSTERS,
    DEAD_LETTER_QUEUE,
    QUEUE,
    EmbeddedAws,
    queue_url,
    routes_location,
    secrets_of,
)
from embedded.external_evalai import ExternalEvalAI
from embedded.prefect_server import answers, exists, look_every, prefect_environment, start_prefect
from embedded.processes import MARKER, Child, Processes
from embedded.service_supervisor import Supervisor
from embedded.stack_lock import stack_lock
from evaluation.errors import InvalidConfiguration

PROJECT = Path(__file__).resolve().parents[1]  # the children's working directory: from here they import everything
INSTALL = "Run: pip install 'leaderboard-flows[embedded]'"
ROUTES = Path(local_jobs.__file__).parent / "routes"
# What a person's own set-up must not lend to the stack: their clouds, their Prefect.
FOREIGN = ("AWS_", "PREFECT_", "LEADERBOARD_")

LEASE_SECONDS = 45  # unless one is set: on one machine a death is known sooner than in a cluster

Say = Callable[[str], None]


@dataclass
class Stack:
    """A running stack."""

    state: StackState
    processes: Processes
    supervisor: Supervisor
    stages: dict[str, float] = field(default_factory=dict)  # stage -> seconds since the start when it was done

    @property
    def aws(self) -> EmbeddedAws:
        return EmbeddedAws(self.state.aws_url, self.state.region)


@contextlib.contextmanager
def running_stack(settings: Settings, say: Say, evalai: ExternalEvalAI | None = None) -> Iterator[Stack]:
    """Start the stack, hand it over, and stop all of it on the way out, whatever the reason.

    With `evalai` that server is used in the place of the stand-in, and neither started nor stopped.
    Whoever holds it lets its supervisor tend it.
    Raises NeedsOperator where one runs already, ServiceUnavailable where a part does not start (with its log's tail).
    """
    _require_moto()
    with stack_lock(settings):
        folder = settings.state_dir.absolute()
        _clear(folder)
        tokens = evalai.tokens if evalai else challenge.make_tokens()
        state = _plan(settings, folder, tokens, evalai)
        write_state(settings, state)
        processes = Processes(child_environment(settings, state), folder / "logs", PROJECT, state.shards)
        stack = Stack(state, processes, Supervisor(processes, say))
        try:
            _Start(settings, stack, tokens, say, evalai).run()
            write_state(settings, state.model_copy(update={"ready": True}))
            yield stack
        finally:
            with _undisturbed():
                processes.stop()


def _require_moto() -> None:
    """A checkout without its extras has this package, and no moto."""
    if importlib.util.find_spec("moto") is None:
        raise InvalidConfiguration("The embedded stack needs moto", "it is not installed", INSTALL)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not keep the stack from being stopped, which takes some seconds at most."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _clear(folder: Path) -> None:
    """Nothing of an earlier stack is kept but its cache: submissions start again at 1."""
    for name in ("logs", "prefect", "shards", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("logs", "tmp"):
        (folder / name).mkdir(parents=True)


def _plan(
    settings: Settings, folder: Path, tokens: challenge.Tokens, evalai: ExternalEvalAI | None = None
) -> StackState:
    prefect, aws, evalai_port = free_ports((settings.prefect_port, settings.aws_port, settings.evalai_port))
    aws_url = f"http://127.0.0.1:{aws}"
    return StackState(
        id=uuid.uuid4().hex,
        pid=os.getpid(),
        ready=False,
        folder=folder,
        prefect_url=f"http://127.0.0.1:{prefect}",
        aws_url=aws_url,
        evalai_url=evalai.url if evalai else f"http://127.0.0.1:{evalai_port}",
        region=settings.region,
        queue_url=queue_url(aws_url, QUEUE),
        dead_letter_url=queue_url(aws_url, DEAD_LETTER_QUEUE),
        work_pool=settings.work_pool,
        challenge_pk=evalai.challenge_pk if evalai else challenge.CHALLENGE,
        phases=evalai.phases if evalai else challenge.PHASES,
        host_token=tokens.host,
        participant_tokens=tokens.participants,
    )


def free_ports(wanted: tuple[int, ...]) -> list[int]:
    """The wanted ports, or any free ones in the place of those that are taken."""
    with contextlib.ExitStack() as held:  # held until all are chosen, so that none is chosen twice
        return [_bind(held, port) for port in wanted]


def _bind(held: contextlib.ExitStack, port: int) -> int:
    for candidate in (port, 0):
        listener = held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", candidate))
            return int(listener.getsockname()[1])
    raise OSError(f"no free port on 127.0.0.1 in the place of {port}")


def child_environment(settings: Settings, state: StackState) -> dict[str, str]:
    """What every child gets: this process's variables without foreign ones, the embedded AWS, the embedded Prefect."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    nowhere = os.devnull
    return {
        **own,
        **EMBEDDED_CREDENTIALS,
        "AWS_ENDPOINT_URL": state.aws_url,
        "AWS_DEFAULT_REGION": state.region,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        **prefect_environment(state.prefect_api_url, state.folder / "prefect"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        "LEADERBOARD_WORK_POOL": settings.work_pool,
        "LEADERBOARD_RECOVERY_POOL": settings.recovery_pool,
        "LEADERBOARD_REGION": settings.region,
        "LEADERBOARD_AWS_ENDPOINT_URL": state.aws_url,
        "LEADERBOARD_CHALLENGE_PK": str(state.challenge_pk),
        "LEADERBOARD_EVALAI_REQUESTS_PER_MINUTE": str(settings.evalai_requests_per_minute),
        MARKER: state.id,
    }


class _Start:
    """The parts, each started as soon as what it needs is there."""

    def __init__(
        self,
        settings: Settings,
        stack: Stack,
        tokens: challenge.Tokens,
        say: Say,
        evalai: ExternalEvalAI | None,
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._state = stack.state
        self._tokens = tokens
        self._external = evalai is not None
        self._processes = stack.processes
        self._say = say
        self._began = time.monotonic()

    def run(self) -> None:
        pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="start")
        try:
            prefect = pool.submit(self._prefect)
            aws = pool.submit(self._aws)
            evalai = pool.submit(self._evalai)
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
        self._stack.stages[stage] = seconds
        self._say(f"  {seconds:5.1f} s  {stage}")

    def _prefect(self) -> Child:
        home = self._state.folder / "prefect"
        server = start_prefect(self._settings, self._processes, home, self._state.prefect_url)
        self._done(f"Prefect   {self._state.prefect_url}")
        return server

    def _aws(self) -> None:
        port = self._state.aws_url.rpartition(":")[2]
        child = self._processes.start("aws", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port])
        url = f"{self._state.aws_url}/moto-api/"
        self._processes.wait_until(child, lambda: answers(url), self._settings.start_seconds)
        secrets = secrets_of(self._state.evalai_url, self._tokens.installation, self._state.phases)
        self._stack.aws.create_all(ROUTES, secrets, self._settings.visibility_seconds)
        self._done(f"AWS       {self._state.aws_url} (moto)")

    def _evalai(self) -> None:
        state = self._state
        if self._external:
            self._done(f"EvalAI    {state.evalai_url} (not started here)")
            return
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
            },
            "routes": routes_location(cluster),
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
        look_every(self._state.prefect_api_url, self._settings.reconcile_seconds)

    def _worker(self, prefect: "Future[Child]") -> None:
        self._wait_for_pool(prefect.result())
        self._start_worker("worker", self._state.work_pool, "--limit", str(self._settings.worker_limit))
        self._wait_for_pool(prefect.result(), self._settings.recovery_pool)
        self._start_worker("recovery-worker", self._settings.recovery_pool)

    def _start_worker(self, name: str, pool: str, *options: str) -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
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

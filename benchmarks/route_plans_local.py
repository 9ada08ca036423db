"""Published runs driven by the local backend's real processes, their durations scaled: fixed and pulled side by side.

    python -m benchmarks.route_plans_local DURATIONS.csv [--runs 3] [--seconds 120]

Supervisors, scripts, pool and S3 (moto) are the real ones; stand-ins take the place of CARLA and the agent and drive
each route as long as the published run did, scaled so that the bound of a run is --seconds. Of the runs with 13 to 40
routes those are driven from the one whose fixed plan is the worst to the median one.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
import requests

import shard_pod
from benchmarks.route_plans import Driven, Run, expectations, fixed, long_runs, pulled, read_runs
from embedded.aws_server import aws_server
from evaluation import storage_keys
from evaluation.pulling.choice import START_SECONDS
from evaluation.pulling.pool import RoutePool
from evaluation.shards import Budgets, RoutePlan, ShardJob, ShardState, plan_routes
from evaluation.submission.model import LeaderboardVersion, parse_phase
from local_jobs.backend import LocalJobBackend

BUCKET, REGION, PAIRS = "leaderboard-20", "us-west-2", 4
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}


@contextmanager
def s3() -> Iterator[str]:
    """The address of an empty AWS with the bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = aws_server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    requests.post(f"{url}/moto-api/reset", timeout=60)  # all servers of a process share their state
    _client(url).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()


def _client(url: str):  # type: ignore[no-untyped-def]
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client("s3", endpoint_url=url, region_name=REGION, **keys)


async def drive(
    run: Run, seconds: Sequence[float], earlier: Sequence[Run], plan: RoutePlan, folder: Path, url: str
) -> Driven:
    """One submission by the local backend; `seconds` are what its routes take here."""
    submission = 1 if plan is RoutePlan.FIXED else 2
    planned = plan_routes(range(len(seconds)), PAIRS, 1, plan)
    scale = sum(seconds) / sum(run.seconds)
    if plan is RoutePlan.PULLED:
        expected = {route: each * scale for route, each in expectations(run, earlier).items()}
        pool = RoutePool(expected, claims=((),) * len(planned.shards))
        _client(url).put_object(Bucket=BUCKET, Key=storage_keys.pool_key(submission), Body=pool.render())
    jobs = [
        ShardJob(
            submission=submission,
            attempt=1,
            shard=shard,
            phase=parse_phase("leaderboard-20-SENSORS"),
            version=LeaderboardVersion.V2,
            repetitions=1,
            image="demo/agent:steady",
            team_name="benchmark",
            bucket=BUCKET,
            budgets=Budgets(),
            hang_seconds=3600,
            deadline_seconds=3600,
        )
        for shard in planned.shards
    ]
    backend = _backend(run, seconds, folder, url)
    began = time.time()
    await backend.ensure(jobs)
    ends: dict[int, float] = {}
    async for statuses in backend.watch(jobs):
        for index, status in statuses.items():
            if status.state is ShardState.FAILED:
                raise RuntimeError(f"shard {index} of the plan {plan} failed: {status.failure}")
            if status.state is ShardState.FINISHED and status.since:
                ends.setdefault(index, status.since.timestamp() - began)
    return Driven(list(ends.values()), _starts(url, submission, len(jobs)), sum(seconds), 0.0)


def _starts(url: str, submission: int, shards: int) -> int:
    progress = [
        json.loads(_client(url).get_object(Bucket=BUCKET, Key=storage_keys.progress_key(submission, n))["Body"].read())
        for n in range(shards)
    ]
    return sum(each["counters"]["starts"] for each in progress)


def _backend(run: Run, seconds: Sequence[float], folder: Path, url: str) -> LocalJobBackend:
    routes, durations = folder / "routes.xml", folder / "durations.json"
    points = '<position x="0" y="0" z="0"/><position x="{:.1f}" y="0" z="0"/>'
    elements = (
        f'<route id="{route}" town="Town12"><waypoints>{points.format(metres)}</waypoints></route>'
        for route, metres in enumerate(run.metres)
    )
    routes.write_text(f"<routes>{''.join(elements)}</routes>")
    durations.write_text(json.dumps(dict(enumerate(seconds))))
    return LocalJobBackend(
        workdir=folder / "shards",
        routes=str(routes),
        storage={**KEYS, "AWS_ENDPOINT_URL": url},
        scripts=Path(shard_pod.__file__).parent,
        supervisor=[sys.executable, "-m", "shard_pod.supervisor"],
        durations=durations,
        copy_seconds=0.5,
    )


async def compare(run: Run, earlier: Sequence[Run], bound: float) -> tuple[Driven, Driven]:
    """Fixed and pulled at the same time on this machine."""
    scale = bound / run.bound(PAIRS)
    seconds = [max(0.05, each * scale) for each in run.seconds]
    with tempfile.TemporaryDirectory() as place, s3() as url:
        folder = Path(place)
        return await asyncio.gather(
            *(drive(run, seconds, earlier, plan, folder, url) for plan in (RoutePlan.FIXED, RoutePlan.PULLED))
        )


def chosen(runs: Sequence[Run], count: int) -> list[Run]:
    """Runs from the one whose fixed plan is the worst to the median one, evenly."""
    some = [run for run in long_runs(runs) if 13 <= len(run.seconds) <= 40]
    some.sort(key=lambda run: -fixed(run, PAIRS, START_SECONDS).makespan / run.bound(PAIRS))
    return [some[position * (len(some) // 2) // max(1, count - 1)] for position in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.route_plans_local")
    parser.add_argument("durations", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    runs = read_runs(given.durations)
    print(f"makespan / bound of {given.seconds:g} s; GPU time not driving where GPUs are freed, held; starts")
    print("\n| run | routes | fixed | pulled | fixed, simulated | pulled, simulated |\n|---|---|---|---|---|---|")
    for run in chosen(runs, given.runs):
        earlier = runs[: runs.index(run)]
        expected = expectations(run, earlier)
        simulated = fixed(run, PAIRS, START_SECONDS), pulled(run, PAIRS, START_SECONDS, expected)
        driven = asyncio.run(compare(run, earlier, given.seconds))
        cells = [_cell(each, given.seconds) for each in driven]
        cells += [_cell(each, run.bound(PAIRS)) for each in simulated]
        print(f"| {run.source[:28]}…{run.source[-24:]} | {len(run.seconds)} | {' | '.join(cells)} |", flush=True)


def _cell(driven: Driven, bound: float) -> str:
    wasted = f"{100 * driven.waste_freed:.1f} %, {100 * driven.waste_held:.1f} %"
    return f"{driven.makespan / bound:.2f}; {wasted}; {driven.starts}"


if __name__ == "__main__":
    main()

"""Reads the final state from its sources: EvalAI, the ledger, Prefect, the agents' journal, the machine."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import psutil
import requests

from embedded.aws import CLUSTERS
from embedded.processes import family_of
from local_jobs.backend import JOURNAL
from local_jobs.run_directory import processes_of
from tests.chaos.harness import Harness
from tests.chaos.verdict import Driven, Evidence, FlowRun, Hit, Row, Write

FLOW = "evaluate-submission"


def gather(harness: Harness, images: Mapping[int, str], hits: Sequence[Hit]) -> Evidence:
    """Everything as it is now. Raises requests.RequestException while Prefect's server does not answer."""
    runs = list(_flow_runs(harness))
    return Evidence(
        images=dict(images),
        writes=[_write(write) for write in harness.standin.history()],
        rows=list(_rows(harness)),
        runs=runs,
        driven=list(_driven(harness)),
        hits=list(hits),
        left=list(_left(harness, {run.id for run in runs})),
    )


def _write(values: Mapping[str, Any]) -> Write:
    at = datetime.fromisoformat(values["at"])
    return Write(at, values["submission"], values["status"], values["by"], values["digest"])


def _rows(harness: Harness) -> Iterator[Row]:
    for table in CLUSTERS:
        for page in harness.stack.aws.dynamodb.get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                values = {name: str(next(iter(value.values()))) for name, value in item.items()}
                yield Row(
                    submission=int(values["submission-id"]),
                    status=values.get("status", ""),
                    attempt=int(values.get("attempt", "0")),
                    ended="end-time" in values,
                    routes_done=int(values.get("routes-done", "0")),
                    routes_total=int(values.get("routes-total", "0")),
                )


def _flow_runs(harness: Harness) -> Iterator[FlowRun]:
    page, offset = 200, 0
    with requests.Session() as session:
        session.trust_env = False
        while True:
            wanted = {"limit": page, "offset": offset, "flows": {"name": {"any_": [FLOW]}}}
            answer = session.post(f"{harness.stack.state.prefect_api_url}/flow_runs/filter", json=wanted, timeout=30)
            answer.raise_for_status()
            runs = answer.json()
            yield from map(_flow_run, runs)
            if len(runs) < page:
                return
            offset += page


def _flow_run(run: Mapping[str, Any]) -> FlowRun:
    started = run.get("start_time")
    return FlowRun(
        id=run["id"],
        submission=run["parameters"].get("message", {}).get("submission_pk"),
        state=run["state_type"],
        name=run["state_name"],
        started=datetime.fromisoformat(started) if started else None,
    )


def _driven(harness: Harness) -> Iterator[Driven]:
    journal = harness.stack.state.shards / JOURNAL
    for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
        yield Driven(**json.loads(line))


def _left(harness: Harness, runs: Collection[str]) -> Iterator[str]:
    """Shards on this machine, and the processes of these flow runs."""
    shards = harness.stack.state.shards
    for path in sorted(shards.glob("submission-*")):
        yield f"run directory {path.name}"
    for process in processes_of(str(shards)):
        with contextlib.suppress(psutil.Error):
            yield f"process {process.pid}: {' '.join(process.cmdline())[:100]}"
    for process, run in engines(harness):
        if run in runs:  # the reconciler's come and go
            yield f"process {process.pid}: flow run {run}"


def engines(harness: Harness) -> list[tuple[psutil.Process, str]]:
    """The processes of all flow runs that have one of their own (LEADERBOARD_WORK_POOL_TYPE=process); by their age."""
    found = []
    for process in family_of(harness.stack.state.id, harness.stack.state.shards):
        with contextlib.suppress(psutil.Error, OSError):
            if "prefect.engine" in process.cmdline():
                found.append((process.create_time(), process, process.environ()["PREFECT__FLOW_RUN_ID"]))
    return [(process, run) for _, process, run in sorted(found, key=lambda item: item[0])]

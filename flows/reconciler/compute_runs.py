"""Runs of the compute client that Prefect shows as alive and that are not: they would hold their work pool's slots."""

import asyncio
from datetime import UTC, datetime, timedelta

from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from blocks import document_names
from blocks.compute_job_table import ComputeJobTable
from compute_client.job import UnknownJob
from compute_client.table import JobTable
from flows.best_effort import best_effort
from prefect_api.blocks import load_block
from prefect_api.runs import BEGUN, clock_ahead, in_states, mark_crashed, read_runs

FLOW = "compute"
LEASES = 3  # so many leases long, by Prefect's time and by DynamoDB's
DIED = "The run has not renewed its job's lease for so long that its process must have died."


async def mark_dead_compute_runs_crashed() -> int:
    """Mark the runs that hold no job any more, and return how many; takes no job away from anybody.

    A queue whose table or blocks cannot be read is left out, with a warning.
    """
    marked = 0
    async with get_client() as client:
        runs = await read_runs(client, FLOW, in_states(BEGUN))
        prefect_now = datetime.now(UTC) + await clock_ahead(client)
        tables: dict[str, JobTable] = {}
        for run in runs:
            with best_effort(f"Whether run {run.id} lives cannot be said now"):
                name = str(run.parameters.get("jobs", document_names.COMPUTE))
                if name not in tables:
                    tables[name] = (await load_block(ComputeJobTable, name)).jobs()
                if await asyncio.to_thread(_is_dead, tables[name], run, prefect_now):
                    await mark_crashed(client, run.id, DIED)
                    marked += 1
    return marked


def _is_dead(jobs: JobTable, run: FlowRun, prefect_now: datetime) -> bool:
    longest = LEASES * jobs.lease_seconds
    if run.state is None or prefect_now - run.state.timestamp < timedelta(seconds=longest):
        return False
    try:
        return jobs.silent_seconds(str(run.parameters.get("job_id")), str(run.id)) > longest
    except UnknownJob:
        return True  # it can compute nothing

"""Runs that go on with what another began. Whoever wants the same successor gets the same run."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from evaluation.errors import InvalidConfiguration
from evaluation.lifecycle.takeover import Takeover

# The work queue of what must not wait behind new submissions where all of a worker's slots are taken: successors, whose
# shards may be driving, and the reconciler. `leaderboard setup` makes it, and prefect.yaml names it too.
TAKEOVER_QUEUE = "first"
DEPLOYMENT = "evaluate-submission/evaluate-submission"


async def deployment_id(client: PrefectClient) -> UUID:
    """The deployment that evaluates submissions; raises InvalidConfiguration where there is none."""
    try:
        return (await client.read_deployment_by_name(DEPLOYMENT)).id
    except ObjectNotFound as error:
        raise InvalidConfiguration(
            f"Prefect has no deployment {DEPLOYMENT}", remedy="Run `prefect deploy --all`."
        ) from error


def takeover_of(flow_run: FlowRun) -> Takeover:
    """Where a flow run stands in the evaluation, by its parameters."""
    given = flow_run.parameters.get("takeover")
    return Takeover.model_validate(given) if given else Takeover.first(str(flow_run.id))


async def start_takeover_run(
    client: PrefectClient, deployment: UUID, parameters: dict[str, Any], takeover: Takeover, tags: list[str]
) -> FlowRun:
    """Create the run, at once for the first death and later for each further one: what kills runs may pass."""
    pause = timedelta(seconds=10 * 3 ** (takeover.crashes - 1) if takeover.crashes > 1 else 0)
    return await client.create_flow_run_from_deployment(
        deployment,
        parameters={**parameters, "takeover": takeover.model_dump()},
        name=f"submission-{parameters['message']['submission_pk']}",
        state=Scheduled(scheduled_time=datetime.now(UTC) + pause),
        idempotency_key=takeover.key,
        work_queue_name=TAKEOVER_QUEUE,
        tags=tags,
    )

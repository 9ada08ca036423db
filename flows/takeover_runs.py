"""Runs that go on with what another began. Whoever wants the same takeover run gets the same run."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from evaluation.errors import InvalidConfiguration
from evaluation.lifecycle.takeover import Takeover

DEPLOYMENT = "evaluate-submission/evaluate-submission"
# The same flow in a work pool of its own: what repairs must not wait for slots that what is broken holds.
TAKEOVER_DEPLOYMENT = "evaluate-submission/takeover"


async def deployment_id(client: PrefectClient, name: str = DEPLOYMENT) -> UUID:
    """The deployment of that name; raises InvalidConfiguration where there is none."""
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound as error:
        raise InvalidConfiguration(f"Prefect has no deployment {name}", remedy="Run `prefect deploy --all`.") from error


def takeover_of(flow_run: FlowRun) -> Takeover:
    """Where a flow run stands in the evaluation, by its parameters."""
    given = flow_run.parameters.get("takeover")
    return Takeover.model_validate(given) if given else Takeover.first(str(flow_run.id))


async def start_takeover_run(
    client: PrefectClient, parameters: dict[str, Any], takeover: Takeover, tags: list[str]
) -> FlowRun:
    """Create the run, at once after the first death and later after each further one: what kills runs may pass."""
    pause = timedelta(seconds=10 * 3 ** (takeover.crashes - 1) if takeover.crashes > 1 else 0)
    return await client.create_flow_run_from_deployment(
        await deployment_id(client, TAKEOVER_DEPLOYMENT),
        parameters={**parameters, "takeover": takeover.model_dump()},
        name=f"submission-{parameters['message']['submission_pk']}",
        state=Scheduled(scheduled_time=datetime.now(UTC) + pause),
        idempotency_key=takeover.key,
        tags=tags,
    )

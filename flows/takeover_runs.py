"""Runs that go on with what another began. Two requests for the same takeover run get the same run."""

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from evaluation.lifecycle.takeover import Takeover
from prefect_api.runs import start_run

DEPLOYMENT = "evaluate-submission/evaluate-submission"
# The same flow in a work pool of its own: what repairs must not wait for slots that what is broken holds.
TAKEOVER_DEPLOYMENT = "evaluate-submission/takeover"


def takeover_of(flow_run: FlowRun) -> Takeover:
    """Where a flow run stands in the evaluation, by its parameters."""
    given = flow_run.parameters.get("takeover")
    return Takeover.model_validate(given) if given else Takeover.first(str(flow_run.id))


async def start_takeover_run(
    client: PrefectClient, parameters: dict[str, Any], takeover: Takeover, tags: list[str]
) -> FlowRun:
    """Create the run, at once after the first death and later after each further one: what kills runs may pass."""
    pause = timedelta(seconds=10 * 3 ** (takeover.crashes - 1) if takeover.crashes > 1 else 0)
    return await start_run(
        client,
        TAKEOVER_DEPLOYMENT,
        {**parameters, "takeover": takeover.model_dump()},
        name=f"submission-{parameters['message']['submission_pk']}",
        idempotency_key=takeover.key,
        delay=pause,
        tags=tags,
    )

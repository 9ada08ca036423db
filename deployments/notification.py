"""The automation that tells the hosts what only a person can mend, through a notification block of theirs."""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from evaluation.errors import InvalidConfiguration
from flows.reconcile import ATTENTION

NAME = "leaderboard-needs-a-host"


def tell_hosts(client: SyncPrefectClient, block: str) -> str:
    """Make the automation, or point it at another block `type/name`; returns what is there now, for people.

    Raises InvalidConfiguration where the block does not exist.
    """
    kind, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise InvalidConfiguration(
            f"There is no notification block {block!r}",
            "it has to look like slack-webhook/hosts",
            "Make it in Prefect's pages, under Blocks.",
        ) from error
    automation = AutomationCore(
        name=NAME,
        description="Sends what the reconciler leaves to a person.",
        trigger=EventTrigger(
            expect={ATTENTION},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=document.id,
                subject="{{ event.resource['prefect.resource.name'] }} needs a host",
                body="{{ event.payload.finding }}",
            )
        ],
    )
    earlier = client.read_automations_by_name(NAME)
    if earlier:
        client.update_automation(earlier[0].id, automation)
    else:
        client.create_automation(automation)
    return f"notification through {block}"

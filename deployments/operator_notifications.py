"""The automations that tell the hosts what only a person can mend, through a notification block of theirs."""

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from evaluation.errors import InvalidConfiguration
from flows.reconciler.flow import NEEDS_ATTENTION, reconcile

FINDING = "leaderboard-needs-a-host"
SILENCE = "leaderboard-nobody-looks"
LONGEST_SILENCE = timedelta(minutes=20)  # four looks of prefect.yaml's schedule


def notify_operators(client: SyncPrefectClient, block: str, longest_silence: timedelta = LONGEST_SILENCE) -> str:
    """Make the automations, or point them at another block `type/name`; returns what is there now, for people.

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
    for automation in (_finding(document.id), _silence(document.id, longest_silence)):
        earlier = client.read_automations_by_name(automation.name)
        if earlier:
            client.update_automation(earlier[0].id, automation)
        else:
            client.create_automation(automation)
    return f"notifications through {block}"


def _finding(block: UUID) -> AutomationCore:
    return AutomationCore(
        name=FINDING,
        description="Sends what the reconciler leaves to a person.",
        trigger=EventTrigger(
            expect={NEEDS_ATTENTION},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="{{ event.resource['prefect.resource.name'] }} needs a host",
                body="{{ event.payload.finding }}",
            )
        ],
    )


def _silence(block: UUID, longest: timedelta) -> AutomationCore:
    """Prefect's server itself notices that the reconciler is silent: with every worker dead, nobody else can."""
    looked = "prefect.flow-run.Completed"
    minutes = f"{longest.total_seconds() / 60:g} minutes"
    return AutomationCore(
        name=SILENCE,
        description="Says, once, that the reconciler has stopped.",
        trigger=EventTrigger(
            match_related={"prefect.resource.name": reconcile.name, "prefect.resource.role": "flow"},
            after={looked},
            expect={looked},
            posture=Posture.Proactive,
            threshold=1,
            within=longest,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="Nobody looks after the submissions",
                body=f"The flow {reconcile.name} has not completed for {minutes}. No worker may be left: see "
                "`leaderboard doctor`, and the flow's last runs.",
            )
        ],
    )

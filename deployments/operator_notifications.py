"""The automations that notify operators, through a notification block of theirs, of what only a person can repair."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from evaluation.errors import InvalidConfiguration
from flows.reconciler.flow import NEEDS_ATTENTION, reconcile
from services.bridge_heartbeat import HEARTBEAT

ATTENTION = "leaderboard-needs-operator"
RECONCILER_SILENT = "leaderboard-reconciler-silent"
INTAKE_SILENT = "leaderboard-intake-silent"
AUTOMATIONS = (ATTENTION, RECONCILER_SILENT, INTAKE_SILENT)
# What earlier versions called the first two.
_EARLIER_NAMES = {ATTENTION: "leaderboard-needs-a-host", RECONCILER_SILENT: "leaderboard-nobody-looks"}
LONGEST_SILENCE = timedelta(minutes=20)  # four runs of prefect.yaml's schedule, twenty of the bridge's heartbeats


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
            "it has to look like slack-webhook/operators",
            "Create it on Prefect's Blocks page.",
        ) from error
    for automation in _automations(document.id, longest_silence):
        _save(client, automation)
    return f"notifications through {block}"


def _save(client: SyncPrefectClient, automation: AutomationCore) -> None:
    names = [automation.name, _EARLIER_NAMES.get(automation.name, "")]
    saved = [each for name in names if name for each in client.read_automations_by_name(name)]
    if saved:
        client.update_automation(saved[0].id, automation)
    else:
        client.create_automation(automation)


def _automations(block: UUID, longest: timedelta) -> Sequence[AutomationCore]:
    minutes = f"{longest.total_seconds() / 60:g} minutes"
    return (
        _attention(block),
        _silence(
            RECONCILER_SILENT,
            "Sends one notification when the reconciler has stopped.",
            EventTrigger(
                match_related={"prefect.resource.name": reconcile.name, "prefect.resource.role": "flow"},
                after={"prefect.flow-run.Completed"},
                expect={"prefect.flow-run.Completed"},
                posture=Posture.Proactive,
                threshold=1,
                within=longest,
            ),
            _message(
                block,
                "The reconciler is silent",
                f"The flow {reconcile.name} has not completed for {minutes}. Perhaps no worker is online: run "
                "`leaderboard doctor`, and see the flow's last runs.",
            ),
        ),
        _silence(
            INTAKE_SILENT,
            "Sends one notification when the bridge has stopped polling the queue.",
            EventTrigger(
                match={"prefect.resource.id": "leaderboard.bridge.*"},
                for_each={"prefect.resource.id"},
                after={HEARTBEAT},
                expect={HEARTBEAT},
                posture=Posture.Proactive,
                threshold=1,
                within=longest,
            ),
            _message(
                block,
                "No messages are received",
                f"A bridge has not polled its queue for {minutes}, so no message is received. Run "
                "`leaderboard doctor`, and see the bridge's log.",
            ),
        ),
    )


def _attention(block: UUID) -> AutomationCore:
    return AutomationCore(
        name=ATTENTION,
        description="Sends what the reconciler leaves to an operator.",
        trigger=EventTrigger(
            expect={NEEDS_ATTENTION},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            _message(
                block,
                "{{ event.resource['prefect.resource.name'] }} needs an operator",
                "{{ event.payload.finding }}",
            )
        ],
    )


def _silence(name: str, description: str, trigger: EventTrigger, action: SendNotification) -> AutomationCore:
    """Prefect's server itself notices a silence: with every worker dead, nothing else can."""
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[action])


def _message(block: UUID, subject: str, body: str) -> SendNotification:
    return SendNotification(block_document_id=block, subject=subject, body=body)

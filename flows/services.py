"""The services: the blocks of one installation, loaded by the flow and handed to its tasks."""

from typing import Protocol

from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.evalai import EvalAI, host_check_client
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.provenance_key import ProvenanceKey
from blocks.submission_queue import SubmissionQueue
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.ports import ArtifactStore, EvaluationServer, JobBackend, MessageQueue, SubmissionLedger
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import Phase
from flows.evalai_list import SharedList, load_list
from prefect_api.blocks import load_block
from prefect_api.shared import shared_by_runs


class Phases(Protocol):
    """Knows the challenge's phases by their ids."""

    def phase(self, phase_pk: int) -> Phase: ...

    @property
    def clusters(self) -> tuple[str, ...]: ...

    @property
    def challenge_pk(self) -> int | None: ...


class Services:
    """The challenge as a whole. Clusters are loaded when a phase names them.

    No dataclass, and neither is Cluster: Prefect looks into those when it passes them to a task.
    """

    def __init__(
        self,
        evalai: EvaluationServer,
        phases: Phases,
        queue: MessageQueue,
        provenance_key: ProvenanceKey | None = None,
        listed: SharedList | None = None,
    ) -> None:
        """Without `listed`, EvalAI's list for all runs, each run asks EvalAI for itself."""
        self.evalai = evalai
        self.phases = phases
        self.queue = queue
        self.provenance_key = provenance_key
        self.listed = listed

    def phase(self, message: SubmissionMessage) -> Phase:
        """The phase that the message names; raises InvalidConfiguration."""
        return self.phases.phase(message.phase_pk)


class Cluster:
    """Everything of one leaderboard: how it simulates, where it records, where it stores."""

    def __init__(
        self, settings: LeaderboardCluster, backend: JobBackend, ledger: SubmissionLedger, artifacts: ArtifactStore
    ) -> None:
        self.settings = settings
        self.backend = backend
        self.ledger = ledger
        self.artifacts = artifacts

    def entry_of(self, submission: int, team: int | None = None) -> LedgerEntry | None:
        """The submission's row, which the ledger keeps by team too: without the team it reads all rows. Blocks."""
        if team is not None:
            return read_entry(self.ledger.row(team, submission))
        return next((entry for entry in self.ledger.entries() if entry.submission == submission), None)


@shared_by_runs
async def load_services() -> Services:
    """Load the blocks that every submission needs; raises InvalidConfiguration."""
    evalai = await load_block(EvalAI, document_names.EVALAI)
    queue = await load_block(SubmissionQueue, document_names.QUEUE)
    return Services(evalai.client(), evalai, queue, evalai.signing_key(), await load_list(evalai))


async def load_services_for_person() -> Services:
    """For a command that a person waits for: it asks EvalAI beside the request budget, and not for minutes."""
    evalai = await load_block(EvalAI, document_names.EVALAI)
    queue = await load_block(SubmissionQueue, document_names.QUEUE)
    return Services(host_check_client(evalai), evalai, queue, evalai.signing_key())


@shared_by_runs
async def load_cluster(name: str) -> Cluster:
    """Load the blocks of one cluster, which are named after it; raises InvalidConfiguration."""
    settings = await load_block(LeaderboardCluster, name)
    return Cluster(
        settings, settings.backend(), await load_block(LedgerTable, name), await load_block(ArtifactBucket, name)
    )

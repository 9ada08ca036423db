"""What every step of an evaluation needs: whose submission, by which claim, on which cluster, with which Jobs."""

import asyncio

from blocks.leaderboard_cluster import LeaderboardCluster
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.takeover import Takeover
from evaluation.lifecycle.team_hints import TeamRules
from evaluation.ports import ArtifactStore, Claim, EvaluationServer, JobBackend, SubmissionLedger
from evaluation.shards import ShardJob
from evaluation.submission.model import Submission
from flows.services import Cluster, Services


class EvaluationContext:
    """One claimed submission and its surroundings. `jobs` is empty until the shards are planned.

    No dataclass: Prefect looks into those when it passes them to a task.
    """

    def __init__(
        self,
        services: Services,
        cluster: Cluster,
        submission: Submission,
        claim: Claim,
        takeover: Takeover | None = None,
    ) -> None:
        self.services = services
        self.cluster = cluster
        self.submission = submission
        self.claim = claim
        self.takeover = takeover
        self.jobs: tuple[ShardJob, ...] = ()
        self.image_digest = ""  # of the first attempt, once it is known
        self.images: dict[str, set[int]] = {}  # digest -> shards where it was seen, by any pod of any attempt
        self.images_kept: dict[str, list[int]] = {}  # what the ledger has of that

    @property
    def evalai(self) -> EvaluationServer:
        return self.services.evalai

    @property
    def settings(self) -> LeaderboardCluster:
        return self.cluster.settings

    @property
    def team_rules(self) -> TeamRules:
        """What a team is told when its agent has broken them."""
        return self.settings.team_rules(self.submission.phase.track)

    @property
    def backend(self) -> JobBackend:
        return self.cluster.backend

    @property
    def ledger(self) -> SubmissionLedger:
        return self.cluster.ledger

    @property
    def artifacts(self) -> ArtifactStore:
        return self.cluster.artifacts

    async def renew(self, stage: Stage | None = None) -> None:
        """Check that the claim still holds, and say which stage begins; raises AlreadyClaimed where it does not.

        Each lasting effect asks first: a run that stood still for a while must not overwrite what a takeover run wrote.
        """
        await asyncio.to_thread(self.ledger.renew, self.claim, stage)

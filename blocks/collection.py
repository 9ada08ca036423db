"""All that Prefect finds of this project by its entry point: the blocks, and the worker type `in-process`."""

from blocks.artifact_bucket import ArtifactBucket
from blocks.batch_tasks import BatchTasks
from blocks.compute_job_table import ComputeJobTable
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from flow_worker.worker import InProcessWorker as InProcessWorker

__all__ = [
    "ArtifactBucket",
    "BatchTasks",
    "ComputeJobTable",
    "EvalAI",
    "LeaderboardCluster",
    "LedgerTable",
    "SubmissionQueue",
]

"""All of the project's blocks, for `prefect block register -m blocks.collection` and as Prefect's entry point."""

from blocks.artifact_bucket import ArtifactBucket
from blocks.compute_cluster import ComputeCluster
from blocks.compute_jobs import ComputeJobs
from blocks.evalai import EvalAI
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue

__all__ = ["ArtifactBucket", "ComputeCluster", "ComputeJobs", "EvalAI", "LedgerTable", "SubmissionQueue"]

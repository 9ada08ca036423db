"""Prefect blocks: everything outside that the flows talk to. `prefect block register -m blocks` registers them all."""

from blocks.artifact_bucket import ArtifactBucket
from blocks.compute_cluster import ComputeCluster
from blocks.evalai import EvalAI
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue

__all__ = ["ArtifactBucket", "ComputeCluster", "EvalAI", "LedgerTable", "SubmissionQueue"]

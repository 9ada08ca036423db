"""The block documents' names, in one place: what fills them and what loads them must agree."""

import re

EVALAI = "evalai"
QUEUE = "submissions"
CREDENTIALS = "leaderboard"
COMPUTE = "compute"  # the compute client's queue and its jobs; another function's have another name
BATCH = "batch"  # the functions on AWS Batch

# Prefect's own rule for a document's name.
_DOCUMENT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def names_a_block(cluster: str) -> bool:
    """Whether a cluster's ledger, bucket and compute blocks can be called after it, e.g. leaderboard-20."""
    return _DOCUMENT_NAME.fullmatch(cluster) is not None

"""What runs the shards, and the routes that they drive."""

from collections.abc import Iterator
from functools import partial

from doctor.context import DoctorContext
from doctor.findings import Check


def cluster_checks(context: DoctorContext) -> Iterator[Check]:
    for cluster in context.clusters:
        yield Check(f"Cluster: machines of {cluster}", partial(_machines, context, cluster))
        yield Check(f"Cluster: routes of {cluster}", partial(_routes, context, cluster))


def _machines(context: DoctorContext, cluster: str) -> str:
    block = context.compute(cluster)
    return block.compute.preflight(block.credentials)


def _routes(context: DoctorContext, cluster: str) -> str:
    block = context.compute(cluster)
    return f"{len(block.read_routes())} routes in {block.routes}, {block.shards} shards"

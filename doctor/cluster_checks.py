"""What runs the shards, and the routes that they drive."""

from collections.abc import Iterator
from functools import partial

from doctor.context import DoctorContext
from doctor.findings import Check


def cluster_checks(site: DoctorContext) -> Iterator[Check]:
    for cluster in site.clusters:
        yield Check(f"Cluster: machines of {cluster}", partial(_machines, site, cluster))
        yield Check(f"Cluster: routes of {cluster}", partial(_routes, site, cluster))


def _machines(site: DoctorContext, cluster: str) -> str:
    block = site.compute(cluster)
    return block.compute.preflight(block.credentials)


def _routes(site: DoctorContext, cluster: str) -> str:
    block = site.compute(cluster)
    return f"{len(block.read_routes())} routes in {block.routes}, {block.shards} shards"

"""What runs the shards, and the routes that they drive."""

from collections.abc import Iterator
from functools import partial

from deployments.doctor.findings import Check
from deployments.doctor.site import Site


def cluster_checks(site: Site) -> Iterator[Check]:
    for cluster in site.clusters:
        yield Check(f"Cluster: machines of {cluster}", partial(_machines, site, cluster))
        yield Check(f"Cluster: routes of {cluster}", partial(_routes, site, cluster))


def _machines(site: Site, cluster: str) -> str:
    block = site.compute(cluster)
    return block.compute.reach(block.credentials)


def _routes(site: Site, cluster: str) -> str:
    block = site.compute(cluster)
    return f"{len(block.read_routes())} routes in {block.routes}, {block.shards} shards"

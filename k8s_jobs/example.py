"""Prints what would be sent to a cluster: `python -m k8s_jobs.example 2.0`, `… 1.0` or `… network-policies CIDR...`."""

import sys
from typing import Any

import yaml

from evaluation.errors import InvalidConfiguration
from evaluation.shards import Budgets, ShardJob, split_contiguous
from evaluation.submission.model import LeaderboardVersion, parse_phase
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.manifest import job_manifest, network_policies

_REGISTRY = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
_NO_ADDRESS = "192.0.2.1/32"  # for documentation, RFC 5737: until the endpoints are named, nothing is reachable


def example_job(version: LeaderboardVersion) -> ShardJob:
    """The second of four shards of a made-up submission."""
    cluster = {LeaderboardVersion.V1: "leaderboard-10", LeaderboardVersion.V2: "leaderboard-20"}[version]
    return ShardJob(
        submission=4711,
        attempt=1,
        shard=split_contiguous(range(20), 4)[1],
        phase=parse_phase(f"{cluster}-SENSORS"),
        version=version,
        repetitions=5 if version is LeaderboardVersion.V1 else 1,
        image="111122223333.dkr.ecr.us-east-1.amazonaws.com/team-42:9f86d081",
        team_name="Équipe 自動運転 🚗",
        bucket=cluster,
        budgets=Budgets(),
        hang_seconds=800,
        deadline_seconds=48 * 3600,
    )


def example_cluster(version: LeaderboardVersion, storage_cidrs: tuple[str, ...] = (_NO_ADDRESS,)) -> ClusterSpec:
    """The cluster of deployments/eks for this version, with a made-up account."""
    name = {LeaderboardVersion.V1: "leaderboard-10", LeaderboardVersion.V2: "leaderboard-20"}[version]
    return ClusterSpec(
        namespace="leaderboard",
        simulator_image=f"{_REGISTRY}/{name}-simulator:1",
        leaderboard_image=f"{_REGISTRY}/{name}-leaderboard:1",
        logcopy_image=f"{_REGISTRY}/leaderboard-flows:0.1.0",
        routes_location=f"s3://{name}/routes/routes_testing.xml",
        region="us-west-2",
        worker_role_arn=f"arn:aws:iam::111122223333:role/{name}-submission-worker",
        storage_cidrs=storage_cidrs,
        log_group=name,
    )


class _Dumper(yaml.SafeDumper):
    """Writes commands as blocks, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render_yaml(documents: list[dict[str, Any]]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case [("1.0" | "2.0") as version]:
                chosen = LeaderboardVersion(version)
                documents = [job_manifest(example_job(chosen), example_cluster(chosen))]
            case ["network-policies", *cidrs]:
                cluster = example_cluster(LeaderboardVersion.V2, tuple(cidrs) or (_NO_ADDRESS,))
                documents = network_policies(cluster)
            case _:
                sys.stderr.write(f"{__doc__}\n")
                return 2
    except InvalidConfiguration as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(render_yaml(documents))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The clusters' file of `leaderboard setup`: what the leaderboard-cluster blocks need beyond the secrets.

YAML or JSON: cluster name -> fields of the block LeaderboardCluster. Example: deployments/eks/clusters.yaml.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect_aws import AwsCredentials
from pydantic import ValidationError

from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.secrets import ClusterSecret
from evaluation.errors import InvalidConfiguration

ClusterSettings = Mapping[str, Mapping[str, Any]]


def read_clusters(file: Path) -> ClusterSettings:
    """Read the file; raises InvalidConfiguration that names it."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidConfiguration(f"The clusters' file {file} cannot be read", str(error)) from error
    if not isinstance(content, dict) or not all(isinstance(fields, dict) for fields in content.values()):
        raise InvalidConfiguration(f"The clusters' file {file} is wrong", "it has to map cluster names to fields")
    return content


def compute_cluster(
    cluster: ClusterSecret, credentials: AwsCredentials, fields: Mapping[str, Any]
) -> LeaderboardCluster:
    """The block of one cluster; raises InvalidConfiguration that names every wrong field."""
    known = {
        "cluster": cluster.cluster,
        "credentials": credentials,
        "bucket": cluster.s3_bucket,
        "log_group": cluster.log_group,
    }
    try:
        return LeaderboardCluster(**{**known, **fields, "compute": _with_secret(fields.get("compute"), cluster)})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfiguration(f"The settings of {cluster.cluster} are wrong", problems) from error


def _with_secret(compute: Any, cluster: ClusterSecret) -> Any:
    """Kubernetes settings take what the cluster's secret knows from there, unless the file says otherwise."""
    if not isinstance(compute, dict) or compute.get("kind") != "kubernetes":
        return compute
    eks = {
        "kind": "eks",
        "name": cluster.name,
        "endpoint": cluster.endpoint,
        "certificate_authority": cluster.certificate_authority,
    }
    return {
        "access": eks,
        "simulator_image": cluster.simulator_image,
        "leaderboard_image": cluster.leaderboard_image,
        "logcopy_image": cluster.logcopy_image,
        **compute,
    }

"""A compute cluster's settings, from the clusters' file and the secret to the backend."""

import base64
from pathlib import Path

import pytest
import yaml
from prefect_aws import AwsCredentials

from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.secrets import ClusterSecret
from deployments.clusters_file import compute_cluster
from evaluation.errors import InvalidConfiguration
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.credentials import EksCluster, Kubeconfig
from local_jobs.backend import LocalJobBackend

FILE = Path(__file__).resolve().parents[2] / "deployments/eks/clusters.yaml"
CREDENTIALS = AwsCredentials(region_name="us-west-2")
CERTIFICATE = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()


def secret(cluster: str) -> ClusterSecret:
    names = ("name", "s3_bucket", "table", "log_group")
    return ClusterSecret(
        cluster=cluster,
        endpoint="https://eks.example",
        certificate_authority=CERTIFICATE,
        **{f"{part}_image": f"111122223333.dkr.ecr/{part}:1" for part in ("simulator", "leaderboard", "logcopy")},
        **dict.fromkeys(names, cluster),
    )


@pytest.mark.parametrize("name", ["leaderboard-10", "leaderboard-20"])
def test_the_example_file_and_the_secret_make_a_backend_on_eks(name: str) -> None:
    fields = yaml.safe_load(FILE.read_text("utf-8"))[name]

    block = compute_cluster(secret(name), CREDENTIALS, fields)

    backend = block.backend()
    assert isinstance(backend, KubernetesJobBackend)
    assert backend.access == EksCluster(name, "https://eks.example", CERTIFICATE, "us-west-2")
    assert backend.spec.logcopy_image == "111122223333.dkr.ecr/logcopy:1"
    assert backend.spec.routes_location == f"s3://leaderboard-private-contents/routes/{name}.xml"
    assert backend.spec.log_group == name


def test_the_file_may_choose_a_kubeconfig_instead() -> None:
    compute = {"kind": "kubernetes", "access": {"kind": "kubeconfig", "path": "/k"}, "storage_secret": "aws"}
    fields = {"leaderboard_version": "2.0", "routes": "s3://a/b", "image_registries": ["demo"], "compute": compute}

    backend = compute_cluster(secret("leaderboard-20"), CREDENTIALS, fields).backend()

    assert isinstance(backend, KubernetesJobBackend)
    assert backend.access == Kubeconfig("/k", "")


def test_shards_of_this_machine_log_into_the_secrets_group_too(tmp_path: Path) -> None:
    fields = {
        "leaderboard_version": "2.0",
        "routes": "s3://a/b",
        "image_registries": ["demo"],
        "compute": {"kind": "local", "workdir": str(tmp_path)},
    }

    block = compute_cluster(secret("leaderboard-20"), CREDENTIALS, fields)

    backend = block.backend()
    assert isinstance(backend, LocalJobBackend)
    assert (block.log_group, backend.log_group) == ("leaderboard-20", "leaderboard-20")
    assert compute_cluster(secret("leaderboard-20"), CREDENTIALS, {**fields, "log_group": ""}).log_group == ""


@pytest.mark.parametrize(
    ("compute", "setting"),
    [
        ({"kind": "local", "workdir": "runs", "route_second": 1}, "local.route_second"),
        ({"kind": "kubernetes", "image": "evil.example/x"}, "kubernetes.image"),
        ({"kind": "batch", "task_role": "arn:aws:iam::1:role/admin"}, "batch.task_role"),
    ],
)
def test_a_setting_that_is_none_is_refused_by_name(compute: dict[str, object], setting: str) -> None:
    fields = {"leaderboard_version": "2.0", "routes": "s3://a/b", "image_registries": ["demo"], "compute": compute}
    with pytest.raises(InvalidConfiguration, match=rf"compute\.{setting}: Extra inputs are not permitted"):
        compute_cluster(secret("leaderboard-20"), CREDENTIALS, fields)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"leaderboard_version": "3.0"}, "leaderboard_version: Input should be '1.0' or '2.0'"),
        ({"shards": 0}, "shards: Input should be greater than or equal to 1"),
        ({"compute": {"kind": "slurm"}}, "compute: Input tag 'slurm'"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], problem: str) -> None:
    fields = {**yaml.safe_load(FILE.read_text("utf-8"))["leaderboard-20"], **change}
    with pytest.raises(InvalidConfiguration, match="The settings of leaderboard-20 are wrong") as raised:
        compute_cluster(secret("leaderboard-20"), CREDENTIALS, fields)
    assert problem in str(raised.value)


def test_a_supervisor_without_a_way_to_s3_is_named_when_the_backend_is_made() -> None:
    fields = yaml.safe_load(FILE.read_text("utf-8"))["leaderboard-20"]
    del fields["compute"]["worker_role_arn"]
    block: LeaderboardCluster = compute_cluster(secret("leaderboard-20"), CREDENTIALS, fields)
    with pytest.raises(InvalidConfiguration, match="way to S3"):
        block.backend()

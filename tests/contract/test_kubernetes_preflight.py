"""What `leaderboard doctor` asks a Kubernetes cluster, over real HTTP."""

from pathlib import Path

import pytest
import yaml
from prefect_aws import AwsCredentials
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from blocks.kubernetes_compute import KubeconfigAccess, KubernetesCompute
from embedded.stack import PROJECT
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from k8s_jobs.preflight import RIGHTS

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "%s"}}]
users: [{name: me, user: {token: hidden-token}}]
"""


class Cluster:
    """A version, some Jobs, and rights: (verb, resource) of what is forbidden."""

    def __init__(self, server: HTTPServer) -> None:
        self.forbidden: set[tuple[str, str]] = set()
        server.expect_request("/version").respond_with_json({"gitVersion": "v1.35.2"})
        server.expect_request("/apis/batch/v1/namespaces/shards/jobs").respond_with_json({"items": [{}, {}]})
        reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        server.expect_request(reviews, method="POST").respond_with_handler(self._review)

    def _review(self, request: Request) -> Response:
        wanted = request.get_json()["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted["subresource"])))
        assert wanted["namespace"] == "shards"
        allowed = (wanted["verb"], resource) not in self.forbidden
        return Response(f'{{"status": {{"allowed": {"true" if allowed else "false"}}}}}', 201)


@pytest.fixture
def cluster(httpserver: HTTPServer) -> Cluster:
    return Cluster(httpserver)


def settings_for(address: str, folder: Path) -> KubernetesCompute:
    file = folder / "kubeconfig"
    file.write_text(KUBECONFIG % address)
    images = dict.fromkeys(("simulator_image", "leaderboard_image", "logcopy_image"), "registry.example/image:1")
    return KubernetesCompute(access=KubeconfigAccess(path=str(file)), namespace="shards", **images)  # type: ignore[arg-type]


def test_a_cluster_that_allows_what_shards_need_says_its_version(
    cluster: Cluster, httpserver: HTTPServer, tmp_path: Path
) -> None:
    settings = settings_for(httpserver.url_for(""), tmp_path)

    assert settings.preflight(AwsCredentials()) == "Kubernetes v1.35.2, namespace shards, 2 Jobs"


def test_the_rights_are_those_of_the_role_that_is_handed_out() -> None:
    role = next(yaml.safe_load_all((PROJECT / "deployments/eks/cluster/rbac.yaml").read_text("utf-8")))
    handed_out = [(*rule["apiGroups"], *rule["resources"], tuple(rule["verbs"])) for rule in role["rules"]]

    assert list(RIGHTS) == handed_out


def test_every_missing_right_is_named(cluster: Cluster, httpserver: HTTPServer, tmp_path: Path) -> None:
    cluster.forbidden = {("delete", "jobs"), ("get", "pods/log")}

    with pytest.raises(InvalidConfiguration, match=r"namespace shards: delete jobs, get pods/log\. Apply .*rbac.yaml"):
        settings_for(httpserver.url_for(""), tmp_path).preflight(AwsCredentials())


def test_a_token_that_is_not_accepted_says_so_without_it(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/version").respond_with_json({"message": "Unauthorized"}, status=401)

    with pytest.raises(InvalidConfiguration, match="does not accept our credentials") as caught:
        settings_for(httpserver.url_for(""), tmp_path).preflight(AwsCredentials())

    assert "hidden-token" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="the cluster cannot be reached"):
        settings_for("http://127.0.0.1:1", tmp_path).preflight(AwsCredentials())

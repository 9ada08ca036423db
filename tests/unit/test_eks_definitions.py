"""deployments/eks: every file is of a kind that is checked here, and says what docs/kubernetes.md promises."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values, find_placeholders
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from evaluation.submission.model import LeaderboardVersion
from flow_worker.worker import DRAIN_SECONDS, InProcessWorker
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import job_manifest, network_policies

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "eks"
VERSIONS = ("1.34", "1.35")
CLUSTERS = ("leaderboard-10", "leaderboard-20")
Document = dict[str, Any]

# Fields of eksctl.io/v1alpha5 that the definitions use; eksctl refuses others.
CLUSTER_FIELDS = {
    "apiVersion", "kind", "metadata", "vpc", "accessConfig", "iam", "addons", "managedNodeGroups", "cloudWatch",
}  # fmt: skip
NODE_GROUP_FIELDS = {
    "name", "amiFamily", "instanceType", "minSize", "desiredCapacity", "maxSize", "volumeSize", "volumeEncrypted",
    "privateNetworking", "disableIMDSv1", "disablePodIMDS", "propagateASGTags", "labels", "taints", "tags",
}  # fmt: skip


@cache
def documents(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def kubernetes_objects() -> Iterator[tuple[Path, Document]]:
    for path in sorted(FOLDER.glob("*/*.yaml")):
        for document in documents(path):
            yield path, document


def objects_of(kind: str) -> list[Document]:
    return [document for _, document in kubernetes_objects() if document["kind"] == kind]


def cluster(name: str) -> Document:
    (config,) = documents(FOLDER / f"{name}.yaml")
    return config


def test_every_file_is_of_a_kind_that_is_tested() -> None:
    known = {FOLDER / "README.md", FOLDER / "clusters.yaml", FOLDER / "flows/base-job-template.json"}
    known |= {FOLDER / f"{name}.yaml" for name in CLUSTERS}
    known |= set(FOLDER.glob("iam/*.json")) | {path for path, _ in kubernetes_objects()}

    assert {path for path in FOLDER.rglob("*") if path.is_file()} == known


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_manifest_strictly(version: str) -> None:
    problems = []
    for path, document in kubernetes_objects():
        if document["apiVersion"].startswith("kueue.x-k8s.io/"):
            continue  # kinds that Kueue adds: test_kueue_definitions.py
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{path.name}: {document['kind']}: {error}")

    assert problems == []


class TestClusters:
    @pytest.mark.parametrize("name", CLUSTERS)
    def test_the_definition_is_one_of_eksctl(self, name: str) -> None:
        config = cluster(name)

        assert (config["apiVersion"], config["kind"]) == ("eksctl.io/v1alpha5", "ClusterConfig")
        assert config["metadata"]["name"] == name
        assert set(config) <= CLUSTER_FIELDS
        assert all(set(group) <= NODE_GROUP_FIELDS for group in config["managedNodeGroups"])

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_the_version_is_text_and_outlives_1_34(self, name: str) -> None:
        version = cluster(name)["metadata"]["version"]

        assert isinstance(version, str)  # 1.40 as a number would be 1.4
        assert tuple(map(int, version.split("."))) >= (1, 35)
        (autoscaler,) = [o for o in objects_of("Deployment") if o["metadata"]["name"] == "cluster-autoscaler"]
        assert f":v{version}." in autoscaler["spec"]["template"]["spec"]["containers"][0]["image"]

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_gpu_nodes_come_from_zero_and_suit_the_shards(self, name: str) -> None:
        (gpus,) = [group for group in cluster(name)["managedNodeGroups"] if "taints" in group]
        version = LeaderboardVersion.V1 if name == "leaderboard-10" else LeaderboardVersion.V2
        tolerations = job_manifest(example_job(version), example_cluster(version))
        (toleration,) = tolerations["spec"]["template"]["spec"]["tolerations"]

        assert (gpus["minSize"], gpus["desiredCapacity"]) == (0, 0)
        assert gpus["instanceType"] in ClusterSpec.instance_types
        assert [(taint["key"], taint["effect"]) for taint in gpus["taints"]] == [
            (toleration["key"], toleration["effect"])
        ]
        assert gpus["tags"][f"k8s.io/cluster-autoscaler/{name}"] == "owned"
        assert gpus["tags"]["k8s.io/cluster-autoscaler/enabled"] == "true"
        assert gpus["propagateASGTags"] is True

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_no_pod_reaches_a_nodes_metadata_and_no_node_the_internet_side(self, name: str) -> None:
        for group in cluster(name)["managedNodeGroups"]:
            flags = ("disablePodIMDS", "disableIMDSv1", "privateNetworking", "volumeEncrypted")
            assert {flag: group.get(flag) for flag in flags} == dict.fromkeys(flags, True), group["name"]

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_network_policies_are_enforced(self, name: str) -> None:
        addons = {addon["name"]: addon for addon in cluster(name)["addons"]}

        assert json.loads(addons["vpc-cni"]["configurationValues"])["enableNetworkPolicy"] == "true"
        assert "eks-pod-identity-agent" in addons

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_the_flows_enter_as_orchestrators_and_nobody_as_master(self, name: str) -> None:
        access = cluster(name)["accessConfig"]
        (binding,) = [o for o in objects_of("RoleBinding") if o["metadata"]["name"] == "shard-orchestrators"]

        assert access["authenticationMode"] == "API"
        (entry,) = access["accessEntries"]
        assert entry["kubernetesGroups"] == [subject["name"] for subject in binding["subjects"]]
        assert "accessPolicies" not in entry
        assert "system:masters" not in (FOLDER / f"{name}.yaml").read_text()

    def test_both_clusters_differ_in_addresses(self) -> None:
        assert len({cluster(name)["vpc"]["cidr"] for name in CLUSTERS}) == 2


class TestRights:
    def test_the_shards_service_account_carries_nothing(self) -> None:
        (account,) = [o for o in objects_of("ServiceAccount") if o["metadata"]["name"] == ClusterSpec.service_account]

        assert "annotations" not in account["metadata"]
        assert account["automountServiceAccountToken"] is False

    def test_the_orchestrators_rights_are_exactly_these(self) -> None:
        (role,) = [o for o in objects_of("Role") if o["metadata"]["name"] == "shard-orchestrator"]
        rights = {(rule["apiGroups"][0], r): set(rule["verbs"]) for rule in role["rules"] for r in rule["resources"]}

        assert rights == {
            ("batch", "jobs"): {"create", "get", "list", "watch", "delete", "deletecollection"},
            ("", "pods"): {"get", "list", "watch", "delete"},
            ("", "pods/log"): {"get"},
            ("", "configmaps"): {"create", "get"},
            ("", "events"): {"get", "list", "watch"},
        }
        assert role["metadata"]["namespace"] == "leaderboard"

    def test_only_the_autoscaler_has_rights_in_the_whole_cluster(self) -> None:
        assert [role["metadata"]["name"] for role in objects_of("ClusterRole")] == ["cluster-autoscaler"]
        assert [binding["metadata"]["name"] for binding in objects_of("ClusterRoleBinding")] == ["cluster-autoscaler"]
        for role in objects_of("Role") + objects_of("ClusterRole"):
            for rule in role["rules"]:
                assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
                assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


class TestNamespace:
    def test_the_policies_are_the_renderers(self) -> None:
        assert documents(FOLDER / "cluster/network-policies.yaml") == network_policies(
            example_cluster(LeaderboardVersion.V2)
        )

    def test_shards_live_under_pod_security(self) -> None:
        labels = {o["metadata"]["name"]: o["metadata"]["labels"] for o in objects_of("Namespace")}

        assert labels["leaderboard"]["pod-security.kubernetes.io/enforce"] == "baseline"
        assert labels["flows"]["pod-security.kubernetes.io/enforce"] == "restricted"

    def test_a_shard_keeps_within_the_range_and_is_given_nothing(self) -> None:
        (limits,) = objects_of("LimitRange")
        (container_limits,) = limits["spec"]["limits"]

        # A maximum without a default is the default: a GPU for every container.
        assert set(container_limits["max"]) <= set(container_limits["default"])
        assert "nvidia.com/gpu" not in json.dumps(limits)
        for version in LeaderboardVersion:
            pod = job_manifest(example_job(version), example_cluster(version))["spec"]["template"]["spec"]
            for container in pod["initContainers"] + pod["containers"]:
                resources = container["resources"]
                assert {"cpu", "memory"} <= set(resources["requests"])
                assert gibibytes(resources["limits"]["memory"]) <= gibibytes(container_limits["max"]["memory"])

    def test_fifty_submissions_fit_into_the_quota(self) -> None:
        (quota,) = objects_of("ResourceQuota")
        hard = quota["spec"]["hard"]

        assert int(hard["count/jobs.batch"]) >= 200
        assert int(hard["requests.nvidia.com/gpu"]) >= 200


class TestDaemons:
    def test_the_device_plugin_names_uuids_by_envvar(self) -> None:
        (plugin,) = [o for o in objects_of("DaemonSet") if o["metadata"]["name"] == "nvidia-device-plugin"]
        (container,) = plugin["spec"]["template"]["spec"]["containers"]

        variables = {entry["name"]: entry["value"] for entry in container["env"]}

        assert (variables["DEVICE_LIST_STRATEGY"], variables["DEVICE_ID_STRATEGY"]) == ("envvar", "uuid")

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_each_cluster_has_its_settings(self, name: str) -> None:
        (settings,) = documents(FOLDER / f"cluster/settings-{name}.yaml")

        assert settings["data"]["CLUSTER"] == name
        assert settings["data"]["AWS_REGION"] == cluster(name)["metadata"]["region"]


class TestFlowsLogs:
    def test_fluent_bit_ships_what_the_flows_say_and_nothing_of_the_shards(self) -> None:
        (config,) = [o for o in objects_of("ConfigMap") if o["metadata"]["name"] == "fluent-bit"]
        said = {
            key: re.findall(rf"^\s+{key}\s+(\S+)$", config["data"]["fluent-bit.conf"], re.MULTILINE)
            for key in ("Path", "Tag", "Match", "log_group_name")
        }

        assert said == {
            "Path": ["/var/log/containers/*_flows_*.log"],
            "Tag": ["flow.*"],
            "Match": ["flow.*"],
            "log_group_name": ["${FLOWS_LOG_GROUP}"],
        }

    def test_it_runs_where_the_flows_run_and_may_write_to_their_group_only(self) -> None:
        (daemon,) = [o for o in objects_of("DaemonSet") if o["metadata"]["name"] == "fluent-bit"]
        (settings,) = documents(FOLDER / "cluster/settings-leaderboard-20.yaml")
        accounts = {name: cluster(name)["iam"].get("serviceAccounts", []) for name in CLUSTERS}

        (fluent_bit,) = accounts["leaderboard-20"]
        (right,) = fluent_bit["attachPolicy"]["Statement"]
        assert daemon["spec"]["template"]["spec"]["nodeSelector"] == {"leaderboard/role": "system"}
        assert right["Resource"].endswith(f":log-group:{settings['data']['FLOWS_LOG_GROUP']}:*")
        assert accounts["leaderboard-10"] == []


class TestFlowRuns:
    @pytest.fixture
    def template(self) -> Document:
        loaded: Document = json.loads((FOLDER / "flows/base-job-template.json").read_text())
        return loaded

    def test_every_placeholder_is_a_variable(self, template: Document) -> None:
        placeholders = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}

        assert placeholders == set(template["variables"]["properties"])

    def test_the_worker_makes_a_job_of_it_that_kubernetes_takes(self, template: Document) -> None:
        manifest = prepared(template).job_manifest

        spec = manifest["spec"]["template"]["spec"]
        # The worker insists on these two in a place that Kubernetes ignores.
        assert (spec.pop("completions"), spec.pop("parallelism")) == (1, 1)
        assert kubernetes_validate.validate(manifest, "1.35", strict=True) == "1.35"
        assert manifest["metadata"]["namespace"] == "flows"
        assert spec["serviceAccountName"] == "flow-runs"
        assert spec["automountServiceAccountToken"] is False

    def test_a_flow_run_is_started_once_and_rescheduled_by_prefect(self, template: Document) -> None:
        manifest = prepared(template).job_manifest
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}

        assert manifest["spec"]["backoffLimit"] == 0
        assert "backoff_limit" not in template["variables"]["properties"]
        assert variables["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"

    def test_all_pods_of_the_flows_are_restricted(self, template: Document) -> None:
        pods = [deployment["spec"]["template"]["spec"] for _, deployment in kubernetes_objects()
                if deployment["kind"] == "Deployment" and deployment["metadata"]["namespace"] == "flows"]  # fmt: skip
        pods.append(prepared(template).job_manifest["spec"]["template"]["spec"])

        for pod in pods:
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in pod["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert len(pods) == 6

    @pytest.mark.parametrize(
        ("name", "pool"), [("flow-worker", "leaderboard"), ("flow-recovery-worker", "leaderboard-recovery")]
    )
    def test_two_workers_run_the_flows_with_their_role_and_have_time_to_hand_them_over(
        self, name: str, pool: str
    ) -> None:
        (worker,) = [o for o in objects_of("Deployment") if o["metadata"]["name"] == name]
        pod = worker["spec"]["template"]["spec"]
        (container,) = pod["containers"]

        assert worker["spec"]["replicas"] == 2
        start = ["prefect", "worker", "start", "--pool", pool, "--type", InProcessWorker.type]
        assert container["command"][:7] == start
        assert pod["serviceAccountName"] == "flow-runs"
        assert pod["automountServiceAccountToken"] is False
        assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS

    def test_the_worker_asks_for_one_namespace_only(self) -> None:
        (worker,) = [o for o in objects_of("Deployment") if o["metadata"]["name"] == "prefect-worker"]
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}

        assert variables["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == "flows"
        assert container["command"][:3] == ["prefect", "worker", "start"]


def prepared(template: Document) -> KubernetesWorkerJobConfiguration:
    """What the worker makes of the template for a flow run: its own code, but for the look-up of blocks on a server."""
    variables = template["variables"]["properties"]
    defaults = {name: each["default"] for name, each in variables.items() if each.get("default") is not None}
    configuration = KubernetesWorkerJobConfiguration(**apply_values(template["job_configuration"], defaults))
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="submission-7"))
    return configuration


def gibibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) / (1024 if unit == "Mi" else 1)

"""deployments/eks/iam: what a cluster's VPC endpoints allow; and how the files are changed for a staging."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.aws import CLUSTERS
from tests.aws_templates import DEPLOYMENTS, Document, as_list, aws, default, properties

FOLDER = DEPLOYMENTS / "eks"
README = (FOLDER / "README.md").read_text("utf-8")


def statements(service: str, folder: Path = FOLDER) -> list[Document]:
    policy = json.loads((folder / f"iam/{service}-endpoint-policy.json").read_text("utf-8"))
    return list(policy["Statement"])


def resources_of(action: str, service: str) -> set[str]:
    """What the endpoint policies allow for this action."""
    allowed = [each for each in statements(service) if action in as_list(each["Action"])]
    return {resource for each in allowed for resource in as_list(each["Resource"])}


def test_each_service_that_gets_a_door_has_its_policy() -> None:
    (services,) = re.findall(r"^\$ for service in (.*); do$", README, re.MULTILINE)

    assert {f"{name}-endpoint-policy.json" for name in services.split()} == {
        path.name for path in FOLDER.glob("iam/*.json")
    }


def test_what_leaves_goes_to_our_buckets_and_log_groups() -> None:
    groups = [*CLUSTERS, default("flow-alarms", "LogGroupName")]

    buckets = {f"arn:aws:s3:::{name}{end}" for name in CLUSTERS for end in ("", "/*")}
    assert resources_of("s3:PutObject", "s3") == resources_of("s3:PutObjectTagging", "s3") == buckets
    streams = {f"arn:aws:logs:us-west-2:111122223333:log-group:{group}:*" for group in groups}
    assert resources_of("logs:PutLogEvents", "logs") == resources_of("logs:CreateLogStream", "logs") == streams


@pytest.mark.parametrize("service", ["s3", "logs"])
def test_who_writes_is_of_our_account(service: str) -> None:
    for each in statements(service):
        if any("Put" in action or "Create" in action for action in as_list(each["Action"])):
            assert each["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "111122223333"}}, each["Sid"]


def rights_to_logs() -> Iterator[tuple[str, str]]:
    """(action, group) of all parties in these networks: supervisors, Fluent Bit, flow runs with shards on Batch."""
    fluent_bit = yaml.safe_load((FOLDER / "leaderboard-20.yaml").read_text("utf-8"))["iam"]["serviceAccounts"]
    policies: list[Any] = [each["attachPolicy"] for each in fluent_bit]
    policies += [each["PolicyDocument"] for each in properties("batch-roles", "AWS::IAM::ManagedPolicy")]
    policies += [each["PolicyDocument"] for role in properties("pods", "AWS::IAM::Role") for each in role["Policies"]]
    for statement in (statement for policy in policies for statement in policy["Statement"]):
        (group,) = re.findall(r"log-group:([^:]+):", json.dumps(statement)) or [""]
        for action in as_list(statement["Action"]):
            if action.startswith("logs:"):
                yield from ((action, group.replace("${Prefix}${Leaderboard}", name)) for name in CLUSTERS)


def test_what_our_parties_may_do_with_logs_gets_through() -> None:
    rights = set(rights_to_logs())

    assert {action for action, _ in rights} == {"logs:CreateLogStream", "logs:PutLogEvents", "logs:GetLogEvents"}
    shut = {right for right in rights if not any(f":{right[1]}:" in each for each in resources_of(right[0], "logs"))}
    assert shut == set()


class TestStaging:
    @pytest.fixture(scope="class")
    @staticmethod
    def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder after the commands of the README's step 1."""
        folder = tmp_path_factory.mktemp("staging") / "eks"
        shutil.copytree(FOLDER, folder)
        commands = re.findall(r"^\$ (sed .*)$", README, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            subprocess.run(["bash", "-c", command], cwd=folder, check=True)
        return folder

    def test_the_endpoint_policies_are_of_the_stage(self, copy: Path) -> None:
        for service in ("s3", "logs"):
            for resource in [resource for each in statements(service, copy) for resource in as_list(each["Resource"])]:
                assert "staging-leaderboard-" in resource or "starport" in resource
        roles = as_list(statements("sts", copy)[0]["Resource"])
        for name in CLUSTERS:
            for role in (f"staging-{name}-submission-worker", f"eksctl-staging-{name}-addon-vpc-cni"):
                assert any(fnmatchcase(f"arn:aws:iam::111122223333:role/{role}", known) for known in roles), role

    @pytest.mark.parametrize("name", CLUSTERS)
    def test_the_clusters_are_of_the_stage_and_let_its_flows_in(self, copy: Path, name: str) -> None:
        config = yaml.safe_load((copy / f"{name}.yaml").read_text("utf-8"))
        settings = yaml.safe_load((copy / f"cluster/settings-{name}.yaml").read_text("utf-8"))["data"]
        orchestrator = aws("roles")["Resources"]["Orchestrator"]["Properties"]["RoleName"]["Fn::If"][1]

        assert config["metadata"]["name"] == settings["CLUSTER"] == f"staging-{name}"
        (entry,) = config["accessConfig"]["accessEntries"]
        assert entry["principalARN"].endswith(f":role/{orchestrator}")
        for group in config["managedNodeGroups"]:
            assert f"k8s.io/cluster-autoscaler/staging-{name}" in group["tags"]
        assert re.findall(r"(?<!staging-)leaderboard-\d\d", (copy / f"{name}.yaml").read_text("utf-8")) == []

    def test_the_flows_know_roles_routes_images_and_log_group_of_the_stage(self, copy: Path) -> None:
        clusters = yaml.safe_load((copy / "clusters.yaml").read_text("utf-8"))
        settings = yaml.safe_load((copy / "cluster/settings-leaderboard-20.yaml").read_text("utf-8"))["data"]

        assert set(clusters) == set(CLUSTERS)  # as the phases' codenames have them
        for name, cluster in clusters.items():
            assert cluster["compute"]["worker_role_arn"].endswith(f":role/staging-{name}-submission-worker")
            assert cluster["routes"] == f"s3://staging-leaderboard-private-contents/routes/{name}.xml"
        assert settings["FLOWS_LOG_GROUP"] == "staging-" + default("flow-alarms", "LogGroupName")
        for file in ("worker.yaml", "bridge.yaml", "base-job-template.json"):
            assert "/staging-leaderboard-flows:0.1.0" in (copy / "flows" / file).read_text("utf-8")

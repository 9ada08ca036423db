"""deployments/aws: what can be said of the templates without deploying them."""

import json
import re
from pathlib import Path

import pytest
from cfnlint.config import ConfigMixIn
from cfnlint.runner import Runner

from blocks.secrets import SecretNames
from embedded.aws import CLUSTERS, DEAD_LETTER_QUEUE, PRIVATE_CONTENTS, QUEUE, routes_location, secrets_of
from services.bridge import BridgeSettings
from shard_pod.storage import LOG_TAG
from tests.aws_templates import DEPLOYMENTS, TEMPLATES, aws, default, eks, properties, template

HOLDS_DATA = {
    "AWS::DynamoDB::Table",
    "AWS::ECR::Repository",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
    "AWS::SQS::Queue",
}


def test_cfn_lint_finds_nothing() -> None:
    """In all templates at once: loading its rules takes cfn-lint as long as reading a template."""
    found = Runner(ConfigMixIn([], templates=[str(path) for path in TEMPLATES])).run()

    assert [f"{match.filename}: {match}" for match in found] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_knows_the_stages(path: Path) -> None:
    assert template(path)["Parameters"]["Stage"]["AllowedValues"] == ["production", "staging"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_holds_data_outlives_its_stack(path: Path) -> None:
    for name, resource in template(path)["Resources"].items():
        if resource["Type"] in HOLDS_DATA:
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain"), name


class TestQueue:
    def test_the_names_are_those_of_the_code(self) -> None:
        assert default("queue", "QueueName") == QUEUE
        assert default("queue", "DeadLetterQueueName") == DEAD_LETTER_QUEUE

    def test_sqs_makes_no_dead_letter_of_a_message_that_nobody_claims(self) -> None:
        deliveries = BridgeSettings().deliveries_within(default("queue", "RetentionSeconds"))

        assert default("queue", "ReceivesBeforeDead") > 2 * deliveries  # a bridge that dies receives some once more

    def test_a_dead_letter_lives_longer_than_it_lay_on_the_queue(self) -> None:
        (dead,) = [each for each in properties("queue", "AWS::SQS::Queue") if "RedrivePolicy" not in each]

        assert dead["MessageRetentionPeriod"] > default("queue", "RetentionSeconds")

    def test_the_alarms_watch_both_queues_by_what_queue_yaml_exports(self) -> None:
        exported = [each["Export"]["Name"] for each in aws("queue")["Outputs"].values() if "Export" in each]
        watched = {
            each["MetricName"]: each["Dimensions"][0]["Value"]["Fn::ImportValue"]
            for each in properties("queue-alarms", "AWS::CloudWatch::Alarm")
        }

        assert sorted(watched) == ["ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"]
        assert watched["ApproximateNumberOfMessagesVisible"]["Fn::Sub"].endswith("dead-letter-queue")
        assert all(name in exported for name in watched.values())

    def test_the_age_is_noticed_before_sqs_stops_counting_it(self) -> None:
        # SQS leaves a message out of ApproximateAgeOfOldestMessage once it was received three times.
        third = sum(BridgeSettings().hidden_seconds(delivery) for delivery in (1, 2, 3))

        assert aws("queue-alarms")["Parameters"]["OldestMessageSeconds"]["MaxValue"] + 300 <= third


class TestStorage:
    def test_the_table_can_be_set_back(self) -> None:
        (table,) = properties("storage", "AWS::DynamoDB::Table")

        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}

    def test_no_bucket_but_the_public_one_is_public(self) -> None:
        for name in ("storage", "private-contents"):
            (bucket,) = properties(name, "AWS::S3::Bucket")
            assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, name
        (public,) = properties("public-contents", "AWS::S3::Bucket")
        assert public["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True

    def test_the_bucket_forgets_what_the_supervisor_tags_as_log_and_nothing_else(self) -> None:
        (bucket,) = properties("storage", "AWS::S3::Bucket")
        key, _, value = LOG_TAG.partition("=")
        expiring = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule]

        assert [rule["TagFilters"] for rule in expiring] == [[{"Key": key, "Value": value}]]

    def test_the_private_contents_are_where_the_code_looks(self) -> None:
        assert default("private-contents", "BucketName") == PRIVATE_CONTENTS


class TestSecrets:
    def test_they_are_the_ones_that_setup_reads(self) -> None:
        names = {each["Name"]["Fn::If"][2] for each in properties("secrets", "AWS::SecretsManager::Secret")}
        staging = {each["Name"]["Fn::If"][1] for each in properties("secrets", "AWS::SecretsManager::Secret")}

        assert names == {SecretNames().evalai, SecretNames().tracks, *CLUSTERS}
        prefixed = SecretNames().prefixed("staging-")
        assert staging == {prefixed.evalai, prefixed.tracks, *(prefixed.cluster_prefix + name for name in CLUSTERS)}

    def test_they_have_the_keys_and_no_values(self) -> None:
        wanted = secrets_of("http://evalai", "token", {})
        for each in properties("secrets", "AWS::SecretsManager::Secret"):
            content = json.loads(each["SecretString"])
            assert set(content.values()) <= {""}
            assert list(content) == list(wanted[each["Name"]["Fn::If"][2]])


class TestReports:
    def test_the_alarm_counts_what_the_filter_finds(self) -> None:
        (found,) = properties("flow-alarms", "AWS::Logs::MetricFilter")
        (alarm,) = properties("flow-alarms", "AWS::CloudWatch::Alarm")
        (made,) = found["MetricTransformations"]

        assert (alarm["Namespace"], alarm["MetricName"]) == (made["MetricNamespace"], made["MetricName"])

    def test_the_flows_output_goes_to_that_group(self) -> None:
        group = default("flow-alarms", "LogGroupName")

        assert eks("cluster/settings-leaderboard-20.yaml")["data"]["FLOWS_LOG_GROUP"] == group
        assert f":log-group:{group}:*" in (DEPLOYMENTS / "eks/leaderboard-20.yaml").read_text("utf-8")


class TestPage:
    """docs/aws.md: `stack REGION NAME TEMPLATE PARAMETER=VALUE...`."""

    @pytest.fixture
    def commands(self) -> list[list[str]]:
        page = (DEPLOYMENTS.parent / "docs/aws.md").read_text("utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(?:\$ |    )stack (us-.*)$", page, re.MULTILINE)
        return [re.sub(r"\$\([^)]*\)", "...", line).split() for line in lines]

    def test_it_deploys_each_template(self, commands: list[list[str]]) -> None:
        others = ("batch", "compute")  # have pages of their own

        assert {name for _, _, name, *_ in commands} == {
            path.stem for path in TEMPLATES if not path.stem.startswith(others)
        }

    def test_it_gives_the_parameters_that_have_no_default(self, commands: list[list[str]]) -> None:
        for _, _, name, *given in commands:
            known = aws(name)["Parameters"]
            said = {each.partition("=")[0] for each in given} | {"Stage"}
            assert {key for key, each in known.items() if "Default" not in each} <= said <= set(known), name

    def test_queue_and_submissions_images_are_at_evalais_side(self, commands: list[list[str]]) -> None:
        there = {template for region, _, template, *_ in commands if region == "us-east-1"}

        assert there == {"queue", "queue-alarms", "submissions-registry"}


class TestEks:
    @pytest.mark.parametrize("cluster", CLUSTERS)
    def test_the_clusters_know_roles_and_routes_by_the_templates_names(self, cluster: str) -> None:
        settings = eks("clusters.yaml")[cluster]

        assert settings["routes"] == routes_location(cluster)
        assert settings["compute"]["worker_role_arn"].endswith(f":role/{cluster}-submission-worker")

    def test_flow_runs_and_bridge_have_their_roles(self) -> None:
        roles = {key: each["Properties"] for key, each in aws("roles")["Resources"].items()}
        orchestrator, bridge = (roles[key]["RoleName"]["Fn::If"][2] for key in ("Orchestrator", "Bridge"))
        associations = eks("leaderboard-20.yaml")["iam"]["podIdentityAssociations"]
        given = {
            each["serviceAccountName"]: each["roleARN"].rpartition("/")[2] for each in associations if "roleARN" in each
        }

        assert given == {"flow-runs": orchestrator, "bridge": bridge}
        assert eks("flows/bridge.yaml")["spec"]["template"]["spec"]["serviceAccountName"] == "bridge"
        for cluster in CLUSTERS:
            (entry,) = eks(f"{cluster}.yaml")["accessConfig"]["accessEntries"]
            assert entry["principalARN"].endswith(f":role/{orchestrator}")

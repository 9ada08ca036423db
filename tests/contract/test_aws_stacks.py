"""The templates of deployments/aws, deployed into moto: what a run finds there."""

import json
from typing import Any

import boto3
import pytest
from aws_blocks import credentials_of
from aws_harness import CLUSTER, ROUTES, Harness, make_harness
from cfnlint.decode import decode

from blocks.artifact_bucket import read_location
from blocks.secrets import SecretNames, read_installation_secrets
from embedded.aws import CLUSTERS, DEAD_LETTER_QUEUE, QUEUE, TEMPLATES, routes_location
from evaluation.errors import InvalidConfiguration


@pytest.fixture
def harness(aws: dict[str, Any]) -> Harness:
    return make_harness(aws)


class TestWhatARunFinds:
    def test_the_queue_gives_up_into_the_dead_letters(self, harness: Harness) -> None:
        queue, dead = harness.attributes(QUEUE), harness.attributes(DEAD_LETTER_QUEUE)
        redrive = json.loads(queue["RedrivePolicy"])

        assert redrive == {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 1000}
        assert queue["VisibilityTimeout"] == "33"
        assert (queue["MessageRetentionPeriod"], dead["MessageRetentionPeriod"]) == ("345600", "1209600")
        assert queue["SqsManagedSseEnabled"] == dead["SqsManagedSseEnabled"] == "true"

    @pytest.mark.parametrize("cluster", CLUSTERS)
    def test_a_leaderboard_has_table_bucket_and_log_group_of_its_name(self, harness: Harness, cluster: str) -> None:
        table = harness.client("dynamodb").describe_table(TableName=cluster)["Table"]
        encryption = harness.client("s3").get_bucket_encryption(Bucket=cluster)["ServerSideEncryptionConfiguration"]
        (group,) = harness.client("logs").describe_log_groups(logGroupNamePrefix=cluster)["logGroups"]

        assert {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]} == {
            "team-id": "HASH",
            "submission-id": "RANGE",
        }
        assert {each["AttributeType"] for each in table["AttributeDefinitions"]} == {"S"}
        assert table["DeletionProtectionEnabled"] is True
        (rule,) = encryption["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
        assert (group["logGroupName"], group["retentionInDays"]) == (cluster, 90)

    def test_the_secrets_name_what_is_there(self, harness: Harness) -> None:
        read = read_installation_secrets(harness.client("secretsmanager"))

        assert set(read.clusters) == set(CLUSTERS)
        for secret in read.clusters.values():
            assert harness.client("s3").head_bucket(Bucket=secret.s3_bucket)
            assert harness.client("dynamodb").describe_table(TableName=secret.table)
            groups = harness.client("logs").describe_log_groups(logGroupNamePrefix=secret.log_group)["logGroups"]
            assert [group["logGroupName"] for group in groups] == [secret.log_group]

    @pytest.mark.parametrize("cluster", CLUSTERS)
    def test_the_routes_are_in_the_private_contents(self, harness: Harness, cluster: str) -> None:
        found = read_location(routes_location(cluster), credentials_of(harness.aws))

        assert found == (ROUTES / f"{cluster}.xml").read_bytes()


class TestOtherStages:
    def test_a_queue_that_evalai_has_made_stays_and_is_named(self, harness: Harness) -> None:
        theirs = "arn:aws:sqs:us-east-1:999988887777:their-queue"

        made = harness.stacks.deploy("queue", stack="other", Stage="staging", ExistingQueueArn=theirs)

        assert made["QueueArn"] == theirs
        assert made["QueueUrl"] == "https://sqs.us-east-1.amazonaws.com/999988887777/their-queue"
        assert made["QueueName"] == "their-queue"
        assert made["DeadLetterQueueArn"].endswith(":staging-leaderboard-dead-letters")
        urls = harness.client("sqs").list_queues()["QueueUrls"]
        assert sorted(url.rpartition("/")[2] for url in urls) == sorted(
            [QUEUE, DEAD_LETTER_QUEUE, "staging-leaderboard-dead-letters"]
        )

    def test_a_staging_stands_beside_the_production(self, harness: Harness) -> None:
        made = harness.stacks.deploy(
            "storage", stack="s", Stage="staging", Leaderboard=CLUSTER, BucketName="our-staging"
        )
        images = harness.stacks.deploy("submissions-registry", stack="r", Stage="staging")

        assert (made["TableName"], made["LogGroupName"]) == ("staging-leaderboard-20", "staging-leaderboard-20")
        assert made["BucketName"] == "our-staging"
        assert images["RepositoryUri"].endswith("/staging-leaderboard-submissions")

    def test_the_registries_hold_what_a_job_is_made_of(self, harness: Harness) -> None:
        harness.stacks.deploy("registries")

        found = {each["repositoryName"] for each in harness.client("ecr").describe_repositories()["repositories"]}

        images = {f"{cluster}-{image}" for cluster in CLUSTERS for image in ("simulator", "leaderboard", "logcopy")}
        assert found == images | {"leaderboard-flows"}

    def test_setup_says_which_key_of_an_empty_secret_to_fill(self, aws: dict[str, Any]) -> None:
        content, _ = decode(TEMPLATES / "secrets.yaml")
        secrets = boto3.client("secretsmanager", **aws)
        for resource in content["Resources"].values():
            text = resource["Properties"]["SecretString"]
            if text == "{}":
                text = json.dumps({"2203": "leaderboard-20-MAP"})
            secrets.create_secret(Name=resource["Properties"]["Name"]["Fn::If"][1], SecretString=text)

        with pytest.raises(InvalidConfiguration) as caught:
            read_installation_secrets(secrets, SecretNames().prefixed("staging-"))

        assert "secret staging-evalai: auth_token must be one word" in str(caught.value)
        for key in ("endpoint", "certificate_authority", "simulator_image", "s3_bucket", "dynamodb_submissions_table"):
            assert f"secret staging-leaderboard-20: {key} must be" in str(caught.value)

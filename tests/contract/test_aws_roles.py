"""Each role of deployments/aws allows exactly what its code does, which runs against moto here."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aws_blocks import a_submission, credentials_of
from aws_harness import CLUSTER, Harness, make_harness
from aws_rights import Right, allowed, granted, managed_policy, recorded, role_policies
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks.artifact_bucket import read_location
from blocks.dead_letters import DeadLetters
from blocks.secrets import read_installation_secrets
from blocks.shard_logs import append_lines
from deployments.installation import Installation
from deployments.settings import Settings
from doctor.aws_checks import aws_checks
from doctor.context import DoctorContext as Diagnosed
from doctor.findings import CheckStatus, Finding, run_checks
from doctor.queue_checks import queue_checks
from embedded.aws import DEAD_LETTER_QUEUE, PRIVATE_CONTENTS, QUEUE, routes_location
from evaluation import storage_keys
from evaluation.lifecycle.ledger_entry import END_TIME, OUTCOME
from evaluation.shards import Budgets
from evaluation.submission.model import LeaderboardVersion
from shard_pod.log_group import LogGroup
from shard_pod.scoped_session import session_policy
from shard_pod.settings import PairSettings
from shard_pod.storage import ShardStorage

OIDC = "oidc.eks.us-west-2.amazonaws.com/id/A1B2"
LAST_LINES = storage_keys.last_lines_stream(90, 1, 3, "evaluator")
NOWHERE = "http://127.0.0.1:1/api"
REGISTRY = "123456789012.dkr.ecr.us-west-2.amazonaws.com"


@pytest.fixture
def harness(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Harness:
    """The environment is that of a shard's pod, whose AWS is moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws["endpoint_url"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws["region_name"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws["aws_secret_access_key"])
    return make_harness(aws)


def flow_run(harness: Harness) -> None:
    for body in ("acknowledged", "rejected"):
        harness.send(body)
        (received,) = harness.queue.receive(wait_seconds=0)  # the bridge's part, taken out below
        harness.queue.extend(received.delivery, 60)
        if body == "rejected":
            harness.queue.reject(received.delivery, body, "nobody can evaluate it")
        else:
            harness.queue.acknowledge(received.delivery)
    claim = harness.ledger.claim(a_submission(), "run-1")
    harness.ledger.renew(claim)
    harness.ledger.update(claim, {OUTCOME: "90/outcome.json", END_TIME: "2026-11-21T10:00:00+00:00"})
    assert harness.ledger.row(7, 90)
    assert list(harness.ledger.entries())
    harness.artifacts.write("90/plan.json", b"{}", "application/json")
    assert harness.artifacts.read("90/plan.json")
    assert read_location(routes_location(CLUSTER), credentials_of(harness.aws))
    for text in ("[the last 40 lines]\ncp: cannot stat\n", "once more"):
        append_lines(harness.client("logs"), CLUSTER, LAST_LINES, text)


def bridge(harness: Harness) -> None:
    harness.send("not json")
    (received,) = harness.queue.receive(wait_seconds=0)
    harness.queue.hide(received.delivery, 60)
    harness.queue.reject(received.delivery, received.body, "not JSON")


def supervisor(harness: Harness) -> None:
    LogGroup(CLUSTER).put("submission-90/agent", [{"timestamp": 1795253477000, "message": "driving"}])
    storage = ShardStorage(CLUSTER)
    storage.write("90/shards/0/checkpoint.json", b"{}", "application/json")
    storage.write_log("90/shards/0/logs/attempt-1/agent.log", b"driving")
    assert storage.read("90/shards/0/checkpoint.json")
    assert storage.of(PRIVATE_CONTENTS).read(f"routes/{CLUSTER}.xml")


def supervisor_settings(folder: Path, routes: str) -> PairSettings:
    return PairSettings(
        submission=90, attempt=1, shard=0, version=LeaderboardVersion.V2, expected=(), bucket=CLUSTER,
        routes_location=routes, routes=folder, pair_dir=folder, checkpoint=folder, budgets=Budgets(), hang_seconds=1,
        copy_seconds=1, poll_seconds=1, simulator_wait_seconds=1, log_group=CLUSTER,
    )  # fmt: skip


def host(harness: Harness) -> None:
    assert read_installation_secrets(harness.client("secretsmanager")).clusters
    harness.client("sqs").send_message(QueueUrl=harness.queue.dead_letter_url, MessageBody="{}")
    with DeadLetters(harness.queue, wait_seconds=0) as letters:
        (letter, *_) = list(letters)
        assert letters.unseen() == 0
        letters.send_back(letter)
    entry = next(harness.ledger.entries(), None)  # what `leaderboard reconcile` compares, and opens again to repair it
    assert entry
    harness.ledger.reopen(entry)
    assert harness.artifacts.read("90/plan.json")
    assert read_location(routes_location(CLUSTER), credentials_of(harness.aws))


def doctor(harness: Harness) -> list[Finding]:
    """What `leaderboard doctor` finds in AWS, where Prefect does not answer and the secrets have to do."""
    settings = Settings(
        region=harness.aws["region_name"],
        aws_endpoint_url=harness.aws["endpoint_url"],
        queue_url=harness.queue.queue_url,
        dead_letter_url=harness.queue.dead_letter_url,
    )
    with (
        temporary_settings({PREFECT_API_URL: NOWHERE, PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        diagnosed = Diagnosed(settings, Installation(NOWHERE), client)
        return list(run_checks([*aws_checks(diagnosed), *queue_checks(diagnosed)]))


@dataclass(frozen=True)
class Party:
    work: Callable[[Harness], None]
    role: str
    helped_by: frozenset[str] = frozenset()  # actions in `work` that are another's
    unseen: frozenset[str] = frozenset()  # actions granted for what `work` does not do


def deploy_roles(harness: Harness) -> dict[str, str]:
    arns = {"QueueArn": harness.attributes(QUEUE)["QueueArn"]}
    arns["DeadLetterQueueArn"] = harness.attributes(DEAD_LETTER_QUEUE)["QueueArn"]
    made = harness.stacks.deploy("roles", **arns)
    harness.stacks.deploy("pods", Leaderboard=CLUSTER, OidcProvider=OIDC)
    return made


def hosts_policy(harness: Harness) -> list[dict[str, Any]]:
    return managed_policy(harness.aws, deploy_roles(harness)["OperatorsPolicyArn"])


ABSENT = frozenset({"s3:ListBucket"})  # nobody lists: without it, an object that is not there is "denied"
PARTIES = {
    "flow run": Party(flow_run, "leaderboard-flows", helped_by=frozenset({"sqs:ReceiveMessage"}), unseen=ABSENT),
    "bridge": Party(bridge, "leaderboard-bridge"),
    "supervisor": Party(supervisor, "leaderboard-20-submission-worker", unseen=ABSENT),
}
SENDS = Right("sqs:SendMessage", f"arn:aws:sqs:us-west-2:123456789012:{QUEUE}")  # what EvalAI does in these tests


class TestRights:
    @pytest.mark.parametrize("name", PARTIES)
    def test_a_role_may_do_what_its_code_does_and_nothing_more(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        party = PARTIES[name]
        deploy_roles(harness)
        policies = role_policies(harness.aws, party.role)

        with recorded(monkeypatch) as rights:
            party.work(harness)

        needed = {right for right in rights - {SENDS} if right.action not in party.helped_by}
        assert [right for right in sorted(needed) if not allowed(policies, right)] == []
        assert granted(policies) - {right.action for right in needed} == party.unseen

    def test_last_lines_are_in_one_stream_of_the_log_group(self, harness: Harness) -> None:
        flow_run(harness)

        written = harness.client("logs").get_log_events(logGroupName=CLUSTER, logStreamName=LAST_LINES)["events"]
        assert [event["message"] for event in written] == ["[the last 40 lines]", "cp: cannot stat", "once more"]

    def test_hosts_may_set_up_look_and_repair(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        policies = hosts_policy(harness)
        flow_run(harness)

        with recorded(monkeypatch) as rights:
            host(harness)

        assert len({right.action for right in rights}) >= 9
        assert [right for right in sorted(rights) if not allowed(policies, right)] == []

    def test_hosts_may_ask_the_doctor_who_finds_the_stacks_in_order(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policies = hosts_policy(harness)
        harness.stacks.deploy("registries")
        secret = {**json.loads(harness.secret(CLUSTER)), "simulator_image": f"{REGISTRY}/{CLUSTER}-simulator:1"}
        harness.client("secretsmanager").put_secret_value(SecretId=CLUSTER, SecretString=json.dumps(secret))

        with recorded(monkeypatch) as rights:
            findings = doctor(harness)

        assert [right for right in sorted(rights) if not allowed(policies, right)] == []
        problems = {each.subject for each in findings if each.status is CheckStatus.PROBLEM}
        assert problems == {f"AWS: simulator image of {CLUSTER}"}  # nobody has pushed it
        assert sum(each.status is CheckStatus.OK for each in findings) >= 10

    def test_no_role_reaches_the_other_ones_things(self, harness: Harness) -> None:
        deploy_roles(harness)
        bridge_may, supervisor_may = (
            role_policies(harness.aws, name) for name in ("leaderboard-bridge", "leaderboard-20-submission-worker")
        )
        table = "arn:aws:dynamodb:us-west-2:123456789012:table/leaderboard-20"
        routes = f"arn:aws:s3:::{PRIVATE_CONTENTS}/routes"

        assert not allowed(bridge_may, Right("dynamodb:UpdateItem", table))
        assert not allowed(supervisor_may, Right("dynamodb:UpdateItem", table))
        assert not allowed(supervisor_may, Right("s3:PutObject", "arn:aws:s3:::leaderboard-10/90/merged.json"))
        assert allowed(supervisor_may, Right("s3:GetObject", f"{routes}/leaderboard-20.xml"))
        assert not allowed(supervisor_may, Right("s3:GetObject", f"{routes}/leaderboard-10.xml"))
        assert not allowed(supervisor_may, Right("s3:PutObject", f"{routes}/leaderboard-20.xml"))

    def test_only_the_supervisors_service_account_becomes_the_supervisor(self, harness: Harness) -> None:
        deploy_roles(harness)

        role = harness.client("iam").get_role(RoleName="leaderboard-20-submission-worker")["Role"]

        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Federated": f"arn:aws:iam::123456789012:oidc-provider/{OIDC}"}
        assert statement["Condition"]["StringEquals"] == {
            f"{OIDC}:aud": "sts.amazonaws.com",
            f"{OIDC}:sub": "system:serviceaccount:leaderboard:submission-worker",
        }


def test_the_supervisors_session_policy_allows_its_own_folder_and_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = session_policy(supervisor_settings(tmp_path, routes_location(CLUSTER)))

    with recorded(monkeypatch) as needed:
        supervisor(harness)

    assert {right.action for right in needed} >= {"s3:PutObject", "s3:PutObjectTagging", "logs:PutLogEvents"}
    assert [right for right in needed if not allowed([policy], right)] == []
    others = [Right(each.action, each.resource.replace("/90/", "/91/").replace("-90/", "-91/")) for each in needed]
    changed = [right for right in others if right not in needed]
    assert changed
    assert [right for right in changed if allowed([policy], right)] == []

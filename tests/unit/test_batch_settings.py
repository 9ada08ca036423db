"""A cluster on AWS Batch: from the clusters' file to its backend, and what docs/batch.md says of both."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect_aws import AwsCredentials

from batch_jobs.backend import BatchJobBackend
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.secrets import ClusterSecret
from deployments.clusters_file import compute_cluster
from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import parse_phase
from tests.aws_templates import TEMPLATES, aws

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "batch.md").read_text("utf-8")
SECRET = ClusterSecret(
    cluster="leaderboard-20",
    name="leaderboard-20",
    endpoint="local",
    certificate_authority="",
    simulator_image="simulator:1",
    leaderboard_image="leaderboard:1",
    logcopy_image="logcopy:1",
    s3_bucket="leaderboard-20",
    table="leaderboard-20",
    log_group="leaderboard-20",
)


def fields() -> dict[str, Any]:
    """The page's example."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    content: dict[str, Any] = yaml.safe_load(text)
    return content["leaderboard-20"]  # type: ignore[no-any-return]


def cluster(**changes: Any) -> LeaderboardCluster:
    known = fields()
    known["compute"] = {**known["compute"], **changes}
    return compute_cluster(SECRET, AwsCredentials(region_name="us-west-2"), known)


def test_the_pages_cluster_runs_on_batch_as_it_says() -> None:
    backend = cluster().backend()

    assert isinstance(backend, BatchJobBackend)
    spec = backend.spec
    assert spec.definition == "leaderboard-20-shard"
    assert spec.queue_of(parse_phase("leaderboard-20-SENSORS")) == "leaderboard-gpu-production"
    assert spec.queue_of(parse_phase("leaderboard-20-MAP")) == "leaderboard-gpu-adhoc"
    assert spec.routes_location == "s3://leaderboard-private-contents/routes/leaderboard-20.xml"
    assert spec.log_group == "leaderboard-20"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"registrar_role_arn": "leaderboard-20-batch-registrar"}, "registrar_role_arn"),
        ({"waiting_seconds": 0}, "waiting_seconds"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=field):
        cluster(**changes)


def test_the_names_are_those_of_the_stacks() -> None:
    compute = fields()["compute"]
    queues = {
        each["Properties"]["JobQueueName"]["Fn::If"][2]
        for each in aws("batch")["Resources"].values()
        if each["Type"] == "AWS::Batch::JobQueue"
    }
    registrar = aws("batch-roles")["Resources"]["RegistrarRole"]["Properties"]["RoleName"]["Fn::Sub"][0]

    assert {compute["queue"], compute["adhoc_queue"]} <= queues
    plain = registrar.replace("${Prefix}", "").replace("${Leaderboard}", "leaderboard-20")
    assert compute["registrar_role_arn"].endswith(f":role/{plain}")


def test_the_page_deploys_each_template_with_the_parameters_that_have_no_default() -> None:
    commands = re.findall(r"^(?:\$ |    )stack us-west-2 (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    given = {words[1]: {each.partition("=")[0] for each in words[2:]} for words in map(str.split, commands)}

    assert set(given) == {path.stem for path in TEMPLATES if path.stem.startswith("batch")}
    for name, said in given.items():
        known = aws(name)["Parameters"]
        assert {key for key, each in known.items() if "Default" not in each} <= said | {"Stage"} <= set(known), name

"""An installation's secrets as block documents on a real Prefect server."""

from typing import cast

import pytest
from prefect.client.orchestration import get_client
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks import collection
from blocks.collection import ArtifactBucket, EvalAI, LedgerTable, SubmissionQueue
from blocks.document_names import CREDENTIALS, EVALAI, QUEUE
from blocks.installation import QueueAddresses, save_blocks
from blocks.secrets import ClusterSecret, EvalAISecret, InstallationSecrets
from evaluation.errors import ServiceUnavailable
from prefect_api.errors import prefect_errors

ADDRESSES = QueueAddresses("http://127.0.0.1/1/submissions", "http://127.0.0.1/1/dead")


def services(token: str) -> InstallationSecrets:
    cluster = ClusterSecret(
        cluster="leaderboard-20",
        name="eks",
        endpoint="local",
        simulator_image="simulator:1",
        leaderboard_image="leaderboard:1",
        logcopy_image="logcopy:1",
        s3_bucket="a-bucket",
        table="a-table",
        log_group="a-group",
    )
    evalai = EvalAISecret("https://eval.ai", SecretStr(token), {"2203": "leaderboard-20-SENSORS"})
    return InstallationSecrets(evalai, {"leaderboard-20": cluster})


def test_blocks_are_saved_again_over_the_earlier_ones() -> None:
    saved: list[str] = []
    for token in ("old-token", "new-token"):
        credentials = AwsCredentials(region_name="us-west-2", aws_access_key_id=f"id-of-{token}")
        save_blocks(services(token), credentials, ADDRESSES, lambda cluster, _: saved.append(cluster.cluster), 1)

    evalai = cast(EvalAI, EvalAI.load(EVALAI))
    ledger = cast(LedgerTable, LedgerTable.load("leaderboard-20"))
    bucket = cast(ArtifactBucket, ArtifactBucket.load("leaderboard-20"))
    queue = cast(SubmissionQueue, SubmissionQueue.load(QUEUE))
    assert (evalai.auth_token.get_secret_value(), evalai.challenge_pk) == ("new-token", 1)
    assert (ledger.table, bucket.bucket, queue.dead_letter_url) == ("a-table", "a-bucket", ADDRESSES.dead_letter_url)
    assert cast(AwsCredentials, AwsCredentials.load(CREDENTIALS)).aws_access_key_id == "id-of-new-token"
    assert ledger.credentials.aws_access_key_id == "id-of-new-token"
    assert saved == ["leaderboard-20", "leaderboard-20"]

    # New credentials, saved alone, reach the others: they refer to the credentials' block.
    AwsCredentials(region_name="us-west-2", aws_access_key_id="newest").save(CREDENTIALS, overwrite=True)
    assert cast(LedgerTable, LedgerTable.load("leaderboard-20")).credentials.aws_access_key_id == "newest"
    assert cast(SubmissionQueue, SubmissionQueue.load(QUEUE)).credentials.aws_access_key_id == "newest"


def test_a_refusal_by_prefect_which_repeats_a_secret_is_told_without_it() -> None:
    no_document = {"data": {"auth_token": "a-token"}}
    with (
        get_client(sync_client=True) as client,
        pytest.raises(ServiceUnavailable, match=r"^Saving failed: Prefect's server answers 422\.$") as caught,
        prefect_errors("Saving"),
    ):
        client.request("POST", "/block_documents/", json=no_document)

    assert "a-token" in str(caught.value.__cause__)


def test_every_block_is_registered_with_the_module() -> None:
    assert set(collection.__all__) == {
        "ArtifactBucket",
        "BatchTasks",
        "ComputeJobTable",
        "LeaderboardCluster",
        "EvalAI",
        "LedgerTable",
        "SubmissionQueue",
    }
    slugs = {getattr(collection, name).get_block_type_slug() for name in collection.__all__}
    assert slugs == {
        "artifact-bucket",
        "batch-tasks",
        "compute-cluster",
        "compute-jobs",
        "evalai",
        "ledger-table",
        "submission-queue",
    }

"""Every container's output reaches the submission's folder in S3 and the log group, its last words included."""

import re
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

from evaluation import storage_keys
from k8s_jobs.manifest import job_manifest
from shard_pod import upload
from shard_pod.checkpoint_store import CheckpointStore
from shard_pod.log_forwarder import LogForwarder
from shard_pod.log_group import LogGroup
from shard_pod.pair_directory import PairDirectory
from tests.aws_templates import properties
from tests.contract.pair_bench import BUCKET, Bench, Make, benches, container, contract, credentials
from tests.contract.test_batch_containers import command, environment, root  # noqa: F401 - a fixture
from tests.kubernetes_objects import cluster_spec, shard_job
from tests.waiting import PATIENCE_SECONDS

GROUP = "leaderboard-20"
# The container's name, where its log has another one.
LOG_OF = {"private-contents": "init"}


@pytest.fixture
def pair(tmp_path: Path, aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in credentials(aws).items():
        monkeypatch.setenv(name, value)
    boto3.client("logs", **aws).create_log_group(logGroupName=GROUP)
    made = benches(tmp_path, aws)
    make: Make = next(made)
    yield make()
    next(made, None)


def kubernetes_containers() -> set[str]:
    pod = job_manifest(shard_job(), cluster_spec())["spec"]["template"]["spec"]
    return {each["name"] for kind in ("initContainers", "containers") for each in pod[kind]}


def batch_containers() -> set[str]:
    (definition,) = properties("batch-shards", "AWS::Batch::JobDefinition")
    (task,) = definition["EcsProperties"]["TaskProperties"]
    return {each["Name"] for each in task["Containers"]}


def in_s3(pair: Bench, process: str) -> str:
    content = pair.stored(lambda pk, shard: storage_keys.log_key(pk, shard, 1, process))
    return (content or b"").decode()


def in_group(aws: dict[str, Any], process: str) -> list[str]:
    events = boto3.client("logs", **aws).get_log_events(
        logGroupName=GROUP, logStreamName=storage_keys.log_stream(7, 1, 0, process), startFromHead=True
    )["events"]
    return [event["message"] for event in events]


@pytest.mark.parametrize("backend", ["kubernetes", "batch", "local"])
def test_the_last_words_of_each_container_are_in_the_folder_and_in_the_group(
    pair: Bench, aws: dict[str, Any], backend: str
) -> None:
    names = {
        "kubernetes": kubernetes_containers(),
        "batch": batch_containers(),
        "local": {"init", "simulator", "agent", "supervisor"},  # no image, so nothing to copy an evaluator from
    }[backend]
    processes = {LOG_OF.get(name, name) for name in names}
    assert processes <= set(pair.files.logs)
    for process in processes:
        path = pair.files.logs[process]
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{process}: first\n{process}: last words without a line's end")

    upload_of(pair).copy_now(everything=True)
    LogForwarder(pair.settings, pair.files, LogGroup(GROUP)).ship(last=True)

    for process in processes:
        assert in_s3(pair, process).endswith(f"{process}: last words without a line's end"), process
        assert in_group(aws, process) == [f"{process}: first", f"{process}: last words without a line's end"]


def upload_of(pair: Bench) -> upload.Upload:
    return upload.Upload(pair.settings, pair.storage, pair.files, CheckpointStore(pair.settings, pair.files), 0)


def test_what_is_too_long_for_the_folder_says_where_it_is_cut(pair: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LOG_BYTES", 30)
    pair.files.logs["agent"].parent.mkdir(exist_ok=True)
    pair.files.logs["agent"].write_text("x" * 100 + "the last thirty bytes of a log")

    upload_of(pair).copy_now(everything=True)

    assert in_s3(pair, "agent") == (
        "[cut here: the first 100 bytes of this log are left out]\nthe last thirty bytes of a log"
    )


def test_the_evaluators_container_on_batch_notes_what_it_says_until_its_end(root: Path) -> None:  # noqa: F811
    image = root / "image"
    (image / "leaderboard").mkdir(parents=True)
    (image / "leaderboard/file.py").write_text("evaluator")
    for folder in ("leaderboard", "scenario_runner", "CARLA"):
        (root / "evaluator" / folder).mkdir(exist_ok=True)

    ended = subprocess.run(
        command("evaluator", root),
        env=environment("evaluator", root, LEADERBOARD_ROOT=str(image / "leaderboard"), GPUS="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert ended.returncode == 40
    noted = (root / "pair/supervisor/evaluator.log").read_text()
    assert noted == ended.stdout
    assert noted.splitlines() == [
        f"evaluator: LEADERBOARD_ROOT from {image}/leaderboard",
        "evaluator: SCENARIO_RUNNER_ROOT names no folder of the image. Build the leaderboard's image with it.",
    ]
    assert PairDirectory(root / "pair").logs["evaluator"].read_text() == noted


def test_the_containers_before_the_supervisor_are_kept_where_it_never_starts(pair: Bench, aws: dict[str, Any]) -> None:
    pair.files.logs["evaluator"].parent.mkdir(parents=True, exist_ok=True)
    pair.files.logs["evaluator"].write_text("evaluator: LEADERBOARD_ROOT from /workspace\n")
    nowhere = {"ROUTES_LOCATION": f"s3://{BUCKET}/no-such-routes.xml", "LOG_GROUP": GROUP}

    process = container("shard_pod.prepare", {**contract(pair.settings), **credentials(aws), **nowhere})

    process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 40
    assert "There is no route file at" in in_s3(pair, "init")
    assert in_s3(pair, "evaluator") == "evaluator: LEADERBOARD_ROOT from /workspace\n"
    assert any(re.search("There is no route file at", line) for line in in_group(aws, "init"))
    assert in_group(aws, "evaluator") == ["evaluator: LEADERBOARD_ROOT from /workspace"]

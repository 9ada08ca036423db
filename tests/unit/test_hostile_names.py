"""2,000 hostile names of teams and images, from a seed: what comes out is valid for Kubernetes and AWS Batch.

(Phases come from a secret that is checked: tests/contract/test_secrets.py.)

Kubernetes' rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and labels/. Batch's: the
API reference of SubmitJob and RegisterJobDefinition.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import kubernetes_validate
import pytest

from batch_jobs.job_definitions import submission_definition
from batch_jobs.spec import BatchSpec
from batch_jobs.submit_request import submit_request
from evaluation.errors import ImageRefused
from evaluation.shards import Shard, ShardJob
from evaluation.submission.image import require_allowed_image
from evaluation.submission.model import LeaderboardVersion
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import attempt_selector, job_manifest

COUNT, SEED = 2000, 11
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # also what a pod's name begins with: 63 at most
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_NAME = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
SHARE = re.compile(r"[A-Za-z0-9]{1,255}")
TAG = re.compile(r"[A-Za-z0-9 _.:/=+@-]{0,256}")
SPEC = BatchSpec("leaderboard-20-shard", "production", "s3://private/routes.xml", log_group="leaderboard-20")

PATHS = [
    "../",
    "..",
    ".",
    "-",
    "_",
    "/",
    "\\",
    ":",
    "@",
    "#",
    "%00",
    "null",
    "true",
    "NaN",
    "1e3",
    "0x1F",
    "A",
    "z",
    "9",
]
CONTROL = ["\x00", "\x1b[31m", "\r\n", "\n", "\t", " ", "\u00a0", "\u202e", "\u200b", "\ufeff", "\ud800", "\udfff"]
LETTERS = ["é", "e\u0301", "自動", "🚗", "ﷺ", "İ", "ß", "\uff21", "٣", "²", "\U0010ffff"]
CODE = [
    "{{ team }}",
    "{{",
    "${HOME}",
    "$(CARLA_PORT)",
    "$$(x)",
    "`id`",
    "'; DROP TABLE x;--",
    '"',
    "'",
    "&",
    "*",
    "!!",
    "|",
]
PIECES = [*PATHS, *CONTROL, *LETTERS, *CODE, "---", "a: b", "- a", "<script>"]


def hostile_names(dice: random.Random) -> Iterator[str]:
    """Names of up to some thousand characters, of pieces that mean something to somebody on the way."""
    while True:
        name = "".join(dice.choice(PIECES) for _ in range(dice.choice([0, 1, 2, 5, 20, 70])))
        yield name * dice.choice([1, 1, 1, 40])


def hostile_jobs() -> Iterator[ShardJob]:
    dice = random.Random(SEED)  # noqa: S311 - a seed, not a secret
    names = hostile_names(dice)
    for _ in range(COUNT):
        yield replace(
            example_job(dice.choice(list(LeaderboardVersion))),
            team_name=next(names),
            submission=dice.choice([1, 10**6, 2**63 - 1]),
            attempt=dice.choice([1, 10, 999]),
            shard=Shard(dice.randrange(100), 100, (3,)),
        )


def texts_of(value: Any) -> Iterator[str]:
    """Every text of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *texts_of(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)


def test_every_manifest_is_valid_for_kubernetes() -> None:
    clusters = {version: example_cluster(version) for version in LeaderboardVersion}
    for number, job in enumerate(hostile_jobs()):
        manifest = job_manifest(job, clusters[job.version])

        pod = manifest["spec"]["template"]
        assert DNS_LABEL.fullmatch(manifest["metadata"]["name"])
        assert DNS_LABEL.fullmatch(f"{manifest['metadata']['name']}-next")
        for metadata in (manifest["metadata"], pod["metadata"]):
            assert all(LABEL_NAME.fullmatch(name) for name in metadata["labels"] | metadata["annotations"])
            assert all(LABEL_VALUE.fullmatch(value) for value in metadata["labels"].values())
            assert sum(len(text.encode()) for text in texts_of(metadata["annotations"])) < 256 * 1024
        assert json.loads(json.dumps(manifest, ensure_ascii=False).encode()) == manifest
        for part in attempt_selector(job.submission, job.attempt).split(","):
            name, _, value = part.partition("=")
            assert manifest["metadata"]["labels"][name] == value
        if number % 50 == 0:  # the whole schema, which takes longer
            assert kubernetes_validate.validate(manifest, "1.34", strict=True) == "1.34"


def test_no_name_reaches_anything_but_labels_and_annotations() -> None:
    """Not the pod's spec: kubelets replace $(VARIABLE) there, and shells read the commands."""
    for job in islice(hostile_jobs(), COUNT // 10):
        unnamed = replace(job, team_name="")
        cluster = example_cluster(job.version)

        assert (
            job_manifest(job, cluster)["spec"]["template"]["spec"]
            == (job_manifest(unnamed, cluster)["spec"]["template"]["spec"])
        )


def test_every_request_is_valid_for_batch() -> None:
    for job in hostile_jobs():
        request = submit_request(job, SPEC, "arn:of:revision")

        assert JOB_NAME.fullmatch(request["jobName"])
        assert JOB_NAME.fullmatch(submission_definition(SPEC.definition, job.submission))
        assert SHARE.fullmatch(request["shareIdentifier"])
        assert len(request["tags"]) <= 50
        assert all(TAG.fullmatch(text) for tag in request["tags"].items() for text in tag)
        json.dumps(request, ensure_ascii=False).encode()


@pytest.mark.parametrize("prefix", ["", "registry.example/", "registry.example.evil/", "registry.example/../"])
def test_an_image_that_is_admitted_is_a_reference_of_the_registry(prefix: str) -> None:
    admitted = re.compile(r"registry\.example/[A-Za-z0-9_.:@/-]+")
    names: Callable[[], str] = hostile_names(random.Random(SEED)).__next__  # noqa: S311
    for _ in range(COUNT):
        try:
            image = require_allowed_image(prefix + names(), ["registry.example/"])
        except ImageRefused:
            continue
        assert admitted.fullmatch(image)
        assert ".." not in image.split("/")

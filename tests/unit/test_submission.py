import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.errors import ImageRefused, InvalidConfiguration, InvalidMessage
from evaluation.submission.image import pinned, require_allowed_image
from evaluation.submission.message import parse_message
from evaluation.submission.model import CLOSED, UNDER_WAY, WAITING, Phase, SubmissionStatus, parse_phase

IMAGE = "111111111111.dkr.ecr.us-east-1.amazonaws.com/team-5:tag"


def body(**changes: Any) -> str:
    content = {"challenge_pk": "1", "phase_pk": "2", "submission_pk": "34", "submitted_image_uri": IMAGE}
    return json.dumps(content | changes)


def test_ids_come_as_text_or_as_numbers() -> None:
    as_text, as_numbers = parse_message(body()), parse_message(body(challenge_pk=1, phase_pk=2, submission_pk=34))
    assert as_text == as_numbers
    assert (as_text.challenge_pk, as_text.phase_pk, as_text.submission_pk) == (1, 2, 34)
    assert as_text.submitted_image_uri == IMAGE


def test_image_may_be_absent_and_more_may_be_there() -> None:
    message = parse_message(
        '{"challenge_pk": 1, "phase_pk": 2, "submission_pk": 3, "is_static_dataset_code_upload": false}'
    )
    assert message.submitted_image_uri is None


@pytest.mark.parametrize("field", ["challenge_pk", "phase_pk", "submission_pk"])
def test_missing_id_is_named(field: str) -> None:
    content = json.loads(body())
    del content[field]
    with pytest.raises(InvalidMessage, match=f"{field} is missing"):
        parse_message(json.dumps(content))


@pytest.mark.parametrize(
    "value", [0, -1, "0", "-1", 1.0, "1.0", True, None, "", " 1", "1_0", "٣", "x", [], {}, 2**63, "9" * 5000]
)
def test_id_that_is_no_positive_number_is_named(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="submission_pk must be a positive whole number") as caught:
        parse_message(body(submission_pk=value))
    assert len(str(caught.value)) < 300


def test_image_that_is_no_text_is_named() -> None:
    with pytest.raises(InvalidMessage, match="submitted_image_uri must be text"):
        parse_message(body(submitted_image_uri=7))


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", '"text"', "{", "[" * 100_000, "9" * 5000])
def test_what_is_no_message_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidMessage, match=r"^The message is not .*\.$"):
        parse_message(text)


@given(st.text(max_size=40) | st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=5)).map(json.dumps))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        parse_message(text)


@pytest.mark.parametrize(
    ("codename", "cluster", "track"),
    [
        ("leaderboard-20-SENSORS", "leaderboard-20", "SENSORS"),
        ("leaderboard-10-MAP", "leaderboard-10", "MAP"),
        ("a-b", "a", "b"),
    ],
)
def test_phase_is_split_at_its_last_hyphen(codename: str, cluster: str, track: str) -> None:
    assert parse_phase(codename) == Phase(codename, cluster, track)


@pytest.mark.parametrize("codename", ["", "leaderboard", "-SENSORS", "leaderboard-20-", "-"])
def test_phase_that_does_not_split_is_refused_by_name(codename: str) -> None:
    with pytest.raises(InvalidConfiguration, match=repr(codename)):
        parse_phase(codename)


REGISTRIES = ["111111111111.dkr.ecr.us-east-1.amazonaws.com", "demo/"]


@pytest.mark.parametrize("image", [IMAGE, "demo/agent:steady", "demo/agent@sha256:" + "0" * 64])
def test_image_of_an_allowed_registry_passes(image: str) -> None:
    assert require_allowed_image(image, REGISTRIES) == image


@pytest.mark.parametrize(
    "image",
    [
        None,
        "",
        "evil/agent:1",
        "demonstration/agent",
        "111111111111.dkr.ecr.us-east-1.amazonaws.com.evil/agent",
        "demo/",
        "demo/agent\n",
        "demo/agent --privileged",
        "demo/\u202eagent",
        "demo/../evil/agent",
        "demo//agent",
        "/agent",
    ],
)
def test_other_images_are_refused(image: str | None) -> None:
    with pytest.raises(ImageRefused):
        require_allowed_image(image, REGISTRIES)


@pytest.mark.parametrize("registries", [[], [""], ["/"]])
def test_without_a_registry_nothing_is_allowed(registries: list[str]) -> None:
    with pytest.raises(ImageRefused):
        require_allowed_image("/agent", registries)


def test_every_status_of_evalai_waits_is_under_way_or_has_ended() -> None:
    assert sorted([*WAITING, *UNDER_WAY, *CLOSED]) == sorted(SubmissionStatus)


DIGEST = f"sha256:{'a1' * 32}"


@pytest.mark.parametrize(("image", "digest", "runs"), [
    ("registry.example:5000/team/agent:v1", DIGEST, f"registry.example:5000/team/agent@{DIGEST}"),
    ("registry.example:5000/team/agent", DIGEST, f"registry.example:5000/team/agent@{DIGEST}"),
    (f"registry.example/agent:v1@sha256:{'b2' * 32}", DIGEST, f"registry.example/agent@{DIGEST}"),
    ("registry.example/agent:v1", "", "registry.example/agent:v1"),
])  # fmt: skip
def test_a_resume_runs_the_image_by_its_digest(image: str, digest: str, runs: str) -> None:
    assert pinned(image, digest) == runs
    assert require_allowed_image(pinned(image, digest), ["registry.example", "registry.example:5000"]) == runs

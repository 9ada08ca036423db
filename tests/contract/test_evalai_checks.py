"""The doctor's checks of EvalAI, and what `leaderboard setup` asks of a token, against the stand-in server."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.evalai import EvalAI, require_host
from blocks.leaderboard_cluster import LeaderboardCluster, LocalCompute
from deployments.installation import Installation
from deployments.settings import Settings
from doctor.context import DoctorContext
from doctor.evalai_checks import evalai_checks
from doctor.findings import CheckStatus, Finding, run_checks
from embedded.evalai_standin import Challenge, Config, Phase, Split, State, User, create_app, serving, state_of
from evaluation.errors import InvalidConfiguration
from evaluation.results.evalai_result import LABELS_V2
from evaluation.submission.model import LeaderboardVersion

CODENAME = "leaderboard-20-SENSORS"
Change = Callable[["World"], None]


def jwt(expires_at: datetime, user: int = 2) -> str:
    claims = {"token_type": "refresh", "exp": int(expires_at.timestamp()), "user_id": user}
    parts = ({"typ": "JWT", "alg": "HS256"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".sig"


FAR = jwt(datetime(2099, 1, 2, 3, tzinfo=UTC))


class World:
    def __init__(self, url: str, state: State, folder: Path) -> None:
        self.url, self.state = url, state
        self.token = FAR
        self.cluster = LeaderboardCluster(
            cluster="leaderboard-20",
            leaderboard_version=LeaderboardVersion.V2,
            compute=LocalCompute(workdir=folder),
            credentials=AwsCredentials(region_name="us-west-2"),
            bucket="b",
            routes="routes.xml",
            image_registries=["demo"],
        )

    def evalai(self) -> EvalAI:
        phases = {"3": CODENAME}
        return EvalAI(api_server=self.url, auth_token=SecretStr(self.token), phases=phases, challenge_pk=1)

    def at_evalai(self, part: str, **changes: object) -> None:
        """Change the one challenge, phase, split or host."""
        config = self.state.config
        self.state.config = config.model_copy(
            update={part: tuple(each.model_copy(update=changes) for each in getattr(config, part))}
        )

    def findings(self) -> dict[str, Finding]:
        blocks = {EvalAI: self.evalai(), LeaderboardCluster: self.cluster}
        client = type("AnsweringPrefect", (), {"api_healthcheck": lambda _: None})()
        context = DoctorContext(
            Settings(challenge_pk=1),
            Installation("http://prefect.example/api"),
            cast(SyncPrefectClient, client),
            cast(Any, lambda kind, _name: blocks[kind]),
        )
        return {finding.subject: finding for finding in run_checks(evalai_checks(context))}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = Config(
        users=(User(pk=2, name="host", token=FAR), User(pk=3, name="team", token="team-token")),
        challenges=(Challenge(pk=1, hosts=("host",)),),
        phases=(Phase(pk=3, challenge=1, codename=CODENAME),),
        splits=(Split(pk=30, phase=3, labels=LABELS_V2),),
    )
    app = create_app(config, publish=[].append)
    with serving(app) as url:
        yield World(url, state_of(app), tmp_path)


def test_a_challenge_that_fits_is_all_green(world: World) -> None:
    findings = world.findings()

    assert {finding.status for finding in findings.values()} == {CheckStatus.OK}
    assert findings["EvalAI: token"].detail == "a host's of challenge 1, user 2, until 2099-01-02"
    assert findings["EvalAI: leaderboards"].detail == "the labels of all 1 are those of the results"
    assert findings["EvalAI: challenge"].detail == "remote evaluation, Docker images, resuming"


def labels(*names: str, order_by: str | None = None) -> Change:
    return lambda world: world.at_evalai("splits", labels=names, order_by=order_by)


def publishes_partial_results(world: World) -> None:
    world.cluster = world.cluster.model_copy(update={"partial_result_seconds": 300.0})


def expires_tomorrow(world: World) -> None:
    world.token = jwt(datetime.now(UTC) + timedelta(days=1))
    users = tuple(u.model_copy(update={"token": world.token}) if u.pk == 2 else u for u in world.state.config.users)
    world.state.config = world.state.config.model_copy(update={"users": users})


@pytest.mark.parametrize(
    ("change", "subject", "words"),
    [
        (labels(*LABELS_V2[:-1]), "leaderboards", f"{CODENAME}: without {LABELS_V2[-1]}"),
        (labels(*LABELS_V2, "Extra"), "leaderboards", f"{CODENAME}: with the unknown Extra"),
        (labels(*LABELS_V2, order_by=LABELS_V2[3]), "leaderboards", f"ranked by {LABELS_V2[3]} instead of"),
        (lambda world: world.at_evalai("splits", phase=99), "leaderboards", "it has 0 leaderboards, wanted is one"),
        (lambda world: world.at_evalai("challenges", allow_resuming=False), "challenge", "allow_resuming_submissions"),
        (lambda world: world.at_evalai("challenges", remote_evaluation=False), "challenge", "remote_evaluation is off"),
        (lambda world: world.at_evalai("challenges", docker_based=False), "challenge", "is_docker_based is off"),
        (publishes_partial_results, "challenge", "is_partial_submission_evaluation_enabled is off"),
        (expires_tomorrow, "token", "The token of EvalAI expires on"),
    ],
)
def test_what_does_not_fit_is_named(world: World, change: Change, subject: str, words: str) -> None:
    change(world)

    problems = {name: finding for name, finding in world.findings().items() if finding.status is CheckStatus.PROBLEM}

    assert list(problems) == [f"EvalAI: {subject}"]
    assert words in problems[f"EvalAI: {subject}"].detail
    assert problems[f"EvalAI: {subject}"].remedy


def test_what_a_partial_result_does_to_a_teams_slots_is_said(world: World) -> None:
    publishes_partial_results(world)
    world.at_evalai("phases", partial=True, concurrent_submissions=1)

    finding = world.findings()["EvalAI: challenge"]

    assert finding.status is CheckStatus.OK
    assert f"{CODENAME}: a partial result frees its team's slot, so that more than 1 may run at once" in finding.detail


def test_by_default_no_partial_result_frees_a_slot(world: World) -> None:
    assert world.cluster.partial_result_seconds is None


def test_setup_refuses_a_token_that_is_no_hosts(world: World) -> None:
    assert require_host(world.evalai()) == "EvalAI's token, a host's of challenge 1"

    for token in ("team-token", "unknown"):
        world.token = token
        with pytest.raises(InvalidConfiguration, match=r"EvalAI does not accept the token.*401"):
            require_host(world.evalai())


def test_setup_goes_on_while_evalai_is_away(world: World) -> None:
    away = world.evalai().model_copy(update={"api_server": "http://127.0.0.1:1"})

    assert require_host(away) == "EvalAI's token: not checked (EvalAI cannot be reached)"

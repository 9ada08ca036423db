"""Who this machine is at somebody else's EvalAI: the access file, and which of its phases can be driven here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.embedded_stack import up
from deployments.settings import Settings
from embedded.evalai_standin import Challenge, Config, Phase, User, create_app, serving
from embedded.external_evalai import find_evalai, read_access
from embedded.stack_plan import plan_stack, taken_ports
from evaluation.errors import InvalidConfiguration

ACCESS = {"challenge": 3, "host": "host-token", "teams": {"Team A": "team-token"}}


def written(folder: Path, content: object) -> Path:
    file = folder / "access.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def url() -> Iterator[str]:
    config = Config(
        users=(User(pk=1, name="host", token="host-token"), User(pk=2, name="member", token="team-token")),
        challenges=(Challenge(pk=3, hosts=("host",)), Challenge(pk=4, hosts=("host",))),
        phases=(
            Phase(pk=31, challenge=3, codename="leaderboard-20-MAP"),
            Phase(pk=32, challenge=3, codename="leaderboard-99-MAP"),
            Phase(pk=41, challenge=4, codename="test"),
        ),
    )
    with serving(create_app(config, publish=[].append)) as address:
        yield address


def test_the_phases_are_those_that_a_cluster_here_can_drive(url: str, tmp_path: Path) -> None:
    evalai = find_evalai(f"{url}/", read_access(written(tmp_path, ACCESS)))

    assert (evalai.url, evalai.challenge_pk, evalai.phases) == (url, 3, {"leaderboard-20-MAP": 31})
    assert (evalai.tokens.host, evalai.tokens.installation) == ("host-token", "host-token")
    assert evalai.tokens.participants == {"Team A": "team-token"}


def test_the_stacks_state_is_that_evalais(url: str, tmp_path: Path) -> None:
    evalai = find_evalai(url, read_access(written(tmp_path, ACCESS)))

    state = plan_stack(Settings(), tmp_path, evalai.tokens, evalai)

    assert (state.evalai_url, state.challenge_pk, state.phases) == (url, 3, {"leaderboard-20-MAP": 31})
    assert (state.host_token, state.team_token("Team A")) == ("host-token", "team-token")
    asked = Settings(
        prefect_port=int(state.prefect_url.rpartition(":")[2]), aws_port=int(state.aws_url.rpartition(":")[2])
    )
    assert taken_ports(asked, state, external_evalai=True) == []


def test_a_challenge_without_such_a_phase_is_refused_with_its_phases(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r'No phase of challenge 4 can be driven here: its phases are \["test"\]'
    ):
        find_evalai(url, read_access(written(tmp_path, ACCESS | {"challenge": 4})))


def test_a_token_that_is_no_hosts_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="does not accept the token"):
        find_evalai(url, read_access(written(tmp_path, ACCESS | {"host": "team-token"})))


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (ACCESS | {"challenge": 0}, "challenge"),
        (ACCESS | {"teams": {}}, "teams"),
        (ACCESS | {"token": "secret-of-mine"}, "token"),
        ({"challenge": 3, "teams": {"A": "secret-of-mine"}}, "host"),
        (["secret-of-mine"], "the file"),
    ],
)
def test_a_wrong_file_is_named_without_its_tokens(tmp_path: Path, content: object, field: str) -> None:
    file = written(tmp_path, content)

    with pytest.raises(InvalidConfiguration, match=f"{file} is wrong: {field}") as caught:
        read_access(file)

    assert "secret-of-mine" not in str(caught.value)


def test_one_option_without_the_other_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="Give --evalai and --evalai-access"):
        up(evalai="https://eval.example")

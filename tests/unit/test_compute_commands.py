"""`leaderboard compute`: wrong usage is one sentence, before any request is made."""

from pathlib import Path

import pytest

from cli.main import main
from deployments.compute_setup import Places, given_places
from evaluation.errors import InvalidConfiguration


def test_the_places_are_those_given() -> None:
    assert given_places("q", "d", "t", None) == Places("q", "d", "t", None)


def test_missing_places_are_named() -> None:
    with pytest.raises(InvalidConfiguration, match="give --dead-letter-url, --table") as caught:
        given_places("q", None, "", "b")
    assert "compute.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("post", "{"), "The body is not JSON"),
        (("result", "x"), "There is no installation to ask"),
        (("setup",), "There is no installation to ask"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # no stack is up here
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("LEADERBOARD_STATE_DIR", raising=False)

    with pytest.raises(SystemExit) as ended:
        main(["compute", *words])

    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(said)

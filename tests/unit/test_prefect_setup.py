from pathlib import Path

import pytest

from deployments.prefect_setup import set_up
from deployments.settings import Settings
from evaluation.errors import InvalidConfiguration


@pytest.mark.parametrize(
    ("settings", "option"),
    [({}, "--queue-url"), ({"queue_url": "https://sqs.us-east-1.amazonaws.com/1/q"}, "--dead-letter-url")],
)
def test_a_missing_address_names_its_option(settings: dict[str, str], option: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"give {option} or set LEADERBOARD_"):
        set_up(Settings(**settings), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("leaderboard-20: [", "cannot be read"),
        ("- leaderboard-20", "has to map cluster names to fields"),
        ("leaderboard-20: 4", "has to map cluster names to fields"),
        (None, "cannot be read"),
    ],
)
def test_a_clusters_file_that_is_wrong_is_named(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "clusters.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidConfiguration, match=rf"clusters\.yaml .*{problem}"):
        set_up(Settings(), file)

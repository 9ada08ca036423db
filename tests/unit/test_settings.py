from pathlib import Path

import pytest

from deployments.settings import Settings, load_settings
from evaluation.errors import InvalidConfiguration


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LEADERBOARD_{name.upper()}", raising=False)


def test_defaults_stay_inside_the_state_folder() -> None:
    settings = load_settings()
    folder = Path(".leaderboard")
    assert (settings.state_file, settings.logs, settings.cache) == (
        folder / "stack.json",
        folder / "logs",
        folder / "cache",
    )


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADERBOARD_PREFECT_PORT", "4300")
    monkeypatch.setenv("LEADERBOARD_CACHE_DIR", "elsewhere")
    settings = load_settings()
    assert settings.prefect_port == 4300
    assert settings.cache == Path("elsewhere")


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADERBOARD_AWS_PORT", "99999")
    with pytest.raises(InvalidConfiguration, match=r"LEADERBOARD_AWS_PORT: .*65535"):
        load_settings()


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("LEADERBOARD_ROUTE_SECOND", "LEADERBOARD_ROUTE_SECONDS"),
        ("LEADERBOARD_STATEDIR", "LEADERBOARD_STATE_DIR"),
        ("LEADERBOARD_CHALENGE_PK", "LEADERBOARD_CHALLENGE_PK"),
    ],
)
def test_a_mistyped_setting_is_named(monkeypatch: pytest.MonkeyPatch, mistyped: str, meant: str) -> None:
    monkeypatch.setenv(mistyped, "1")
    with pytest.raises(InvalidConfiguration, match=f"There is no setting {mistyped}: the nearest is {meant}"):
        load_settings()


@pytest.mark.parametrize("name", ["LEADERBOARD_ROOT", "LEADERBOARD_VERSION", "LEADERBOARD_SOMETHING_ELSE"])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/opt/leaderboard")
    assert load_settings().prefect_port == 4200


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []

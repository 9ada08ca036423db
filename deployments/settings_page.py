"""docs/settings.md from the settings themselves: `python -m deployments.settings_page > docs/settings.md`."""

from pydantic.fields import FieldInfo

from deployments.settings import Settings

HEAD = """\
# Settings

Every setting of the `leaderboard` command, the bridge and the embedded stack is a variable of the environment.
Secrets are no settings: they live in Prefect blocks.

| variable | default | what it is |
|---|---|---|
"""


def render() -> str:
    """The page, with its last line's end."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, "") else f"`{field.default}`"
    return f"| `LEADERBOARD_{name.upper()}` | {default} | {field.description} |\n"


if __name__ == "__main__":
    print(render(), end="")

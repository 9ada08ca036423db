"""The documents agree with the code: links, citations, targets, commands, settings, states, rooms."""

import re
import tomllib
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from cli.commands import COMMANDS, GROUPS
from cli.exit_codes import MEANINGS, ExitCode
from deployments import settings_page
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.stages import LEASE_SECONDS, LONGEST, ReconcilerTimeouts, Stage
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.shards import ShardState
from evaluation.submission.model import SubmissionStatus
from flows.reconciler.wording import lasting
from local_jobs.demo_images import BEHAVIOURS
from prefect_api.states import StateName

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/**/*.md", "deployments/**/*.md") for page in ROOT.glob(pattern))
FOR_PEOPLE = ["README.md", "CONTRIBUTING.md"]
FOR_USERS = ["README.md", "deployments/eks/README.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]

FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^()\s]+)\)")
NAMED_TEST = re.compile(r"`(test_\w+)`(?:\]\(([^()\s]+)\))?")
CITED = re.compile(r'\b(docs/[\w/-]+\.md)((?:,? (?:and )?"[^"]+")*)')
CODE = {".py", ".yaml", ".toml", ".sh", ""}  # what may cite a page: also Makefile, Dockerfile and .ci/run


def read(page: str | Path) -> str:
    return (ROOT / page).read_text("utf-8")


def code_of(page: str) -> str:
    """Everything on the page that is set as code, each piece on lines of its own."""
    text = read(page)
    return "\n".join([*FENCED.findall(text), *INLINE.findall(FENCED.sub("", text))])


def named(pattern: str, pages: Iterable[str]) -> dict[str, str]:
    """What the pattern's group finds in the pages' code -> the last page that says so."""
    return {word: page for page in pages for word in re.findall(pattern, code_of(page))}


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", FENCED.sub("", read(page)), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of the page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def broken(page: Path, link: str) -> bool:
    place, _, anchor = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    return not target.exists() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(FENCED.sub("", read(page))) if "://" not in link]

    assert [link for link in links if broken(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_is_in_the_file_that_it_leads_to(page: Path) -> None:
    named_there = NAMED_TEST.findall(read(page))

    assert [name for name, file in named_there if not file] == []
    lost = [(name, file) for name, file in named_there if f"def {name}(" not in read(page.parent / file)]
    assert lost == []


def sources() -> Iterable[Path]:
    rooms = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith((".", "__"))]
    files = [*ROOT.iterdir(), *(file for room in rooms for file in room.rglob("*"))]
    return (file for file in files if file.is_file() and file.suffix in CODE and file != Path(__file__))


def cited(source: Path) -> list[tuple[str, str]]:
    """(page, heading) of each page of docs that the file's comments and docstrings name; heading "" for all of it."""
    text = re.sub(r"\s*\n\s*(?:# ?)?", " ", source.read_text("utf-8", errors="replace"))
    return [(page, heading) for page, rest in CITED.findall(text) for heading in re.findall(r'"([^"]+)"', rest) or [""]]


def test_every_page_and_heading_that_the_code_cites_exists() -> None:
    citations = {(page, heading) for source in sources() for page, heading in cited(source)}

    assert ("docs/reference/results.md", "How 2.x merges") in citations
    lost = {(page, heading) for page, heading in citations if not (ROOT / page).is_file()}
    assert lost == set()
    assert {(page, heading) for page, heading in citations if heading and heading not in headings(ROOT / page)} == set()


def test_the_code_cites_no_page_outside_the_repository() -> None:
    outside = re.compile(r"\bcontracts/[\w-]+\.md")

    assert [source for source in sources() if outside.search(source.read_text("utf-8", errors="replace"))] == []


def test_the_rooms_on_the_page_are_those_of_the_import_contracts_in_their_order() -> None:
    layers = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    ranked = [(rank, room) for rank, layer in enumerate(layers, 1) for room in layer.split(" | ")]

    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", read("docs/architecture.md"), re.MULTILINE)

    assert [(int(rank), room) for rank, room in rows] == ranked


def test_the_glossary_has_every_state_that_a_submission_can_show() -> None:
    states = [*SubmissionStatus, *Stage, *OutcomeStatus, *StateName, *ShardState]

    words = set(INLINE.findall(read("docs/glossary.md")))

    assert [state for state in states if state.value not in words] == []


def test_the_glossary_has_every_exit_code_of_a_pair() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| [^|]+ \| (\w*) ?\|$", read("docs/glossary.md"), re.MULTILINE)

    charged = {code: failure_of(code).fault.value for code in PairExitCode if code is not PairExitCode.FINISHED}
    assert [(int(code), name, fault) for code, name, fault in rows] == [
        (code.value, code.name, charged.get(code, "")) for code in PairExitCode
    ]


def test_the_deadlines_on_the_page_are_those_of_the_code() -> None:
    timeouts = ReconcilerTimeouts(timedelta(seconds=LEASE_SECONDS))
    times = {f"`{stage}`": limit for stage, limit in LONGEST.items()} | {
        "unclaimed": timeouts.until_claimed,
        "scheduled": timeouts.until_started,
        "starting": timeouts.until_started,
        "any of these, silent": timeouts.lease,
        "report refused, or run blocked": timeouts.retry_refused,
        "ended, with Jobs left or EvalAI still waiting": timeouts.settle,
    }

    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]*\| ([^|]+) \| [^|]+ \|$", read("docs/reliability.md"), re.MULTILINE))

    assert {state: rows.get(state) for state in times} == {state: lasting(limit) for state, limit in times.items()}
    assert "`simulating`" in rows


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", read("Makefile"), re.MULTILINE))

    said = named(r"\bmake ([a-z][a-z0-9-]*)", FOR_PEOPLE)

    assert {"demo", "test", "check"} <= set(said)
    assert {target: page for target, page in said.items() if target not in targets} == {}


def test_every_command_exists() -> None:
    said = named(r"(?<![\w-])leaderboard ([a-z][a-z-]*)", FOR_USERS)

    assert {"submit", "merge", "setup"} <= set(said)
    assert {command: page for command, page in said.items() if command not in {*COMMANDS, *GROUPS}} == {}


def test_the_exit_codes_on_the_page_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|$", read("docs/command-line.md"), re.MULTILINE)

    assert [(int(code), text) for code, text in rows] == [(code.value, MEANINGS[code]) for code in ExitCode]


def test_the_readme_lists_the_demo_images() -> None:
    paragraph = next(text for text in read("README.md").split("\n\n") if "(local_jobs/demo_images.py)" in text)

    assert INLINE.findall(paragraph) == list(BEHAVIOURS)


def test_the_page_of_the_settings_is_todays() -> None:
    assert read("docs/settings.md") == settings_page.render(), "python -m deployments.settings_page > docs/settings.md"

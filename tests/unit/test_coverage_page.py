"""docs/coverage.md: its rows are whole, its sums right, and the names and commands in them exist.

That its links lead somewhere and its tests are there is what test_docs.py asks of every page.
"""

import re
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from cli.main import COMMANDS, GROUPS
from tests.unit.test_docs import INLINE, LINK, ROOT, read

PAGE = "docs/coverage.md"
MARKS = ("as said", "different", "partly", "not here")
CODE = ("*.py", "*.yaml", "*.sh")
ROOMS = (
    "evaluation",
    "compute_client",
    "k8s_jobs",
    "batch_jobs",
    "blocks",
    "flows",
    "deployments",
    "services",
    "embedded",
    "doctor",
    "cli",
    "shard_pod",
    "aws_api",
    "evalai_api",
    "prefect_api",
    "benchmarks",
)
LINKED = re.compile(r"\[`[^`]+`\]\([^()\s]+\)")


@dataclass(frozen=True)
class Row:
    says: str
    here: str
    shown: str
    verdict: str

    @property
    def mark(self) -> str:
        return next((mark for mark in MARKS if re.match(rf"{mark}\b", self.verdict)), "")


def chapters() -> dict[str, list[Row]]:
    """A document's heading -> its rows."""
    found = {}
    for heading, text in re.findall(r"^## (\d\. .+)\n((?:(?!## ).*\n)*)", read(PAGE), re.MULTILINE):
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        found[heading] = [Row(*(cell.strip() for cell in line[1:-1].split("|"))) for line in lines[1:]]
    return found


ROWS = [pytest.param(row, id=row.says[:60]) for rows in chapters().values() for row in rows]


def source() -> str:
    files = [file for room in ROOMS for kind in CODE for file in (ROOT / room).rglob(kind)]
    return "\n".join(file.read_text("utf-8") for file in [*files, ROOT / "Makefile", ROOT / "prefect.yaml"])


@pytest.fixture(scope="module")
def words() -> set[str]:
    return set(re.findall(r"\w+", source()))


def test_all_five_documents_are_there() -> None:
    assert [len(rows) > 15 for rows in chapters().values()] == [True] * 5


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_where_it_is_and_how_that_differs(row: Row) -> None:
    assert row.says
    assert row.mark, row.verdict
    if row.mark != "as said":
        assert re.match(rf"{row.mark}: \S", row.verdict), "it has to say why"
    assert row.here or row.mark == "not here"
    assert not row.shown or LINK.search(row.shown) or INLINE.search(row.shown)


def test_the_sums_are_those_of_the_rows() -> None:
    sums = dict(re.findall(r"^\| (\d\. [^|]+) \| ([\d |]+) \|$", read(PAGE), re.MULTILINE))

    counted = {heading: Counter(row.mark for row in rows) for heading, rows in chapters().items()}
    assert {heading: [int(each) for each in text.split(" | ")] for heading, text in sums.items()} == {
        heading: [marks[mark] for mark in MARKS] for heading, marks in counted.items()
    }


def test_what_is_named_as_here_stands_in_the_code(words: set[str]) -> None:
    named = {code for rows in chapters().values() for row in rows for code in INLINE.findall(LINKED.sub("", row.here))}

    assert len(named) > 50
    assert {code for code in named if not set(re.findall(r"\w{2,}", code)) <= words} == set()


def commands() -> set[str]:
    return {code for rows in chapters().values() for row in rows for code in INLINE.findall(f"{row.here} {row.shown}")}


def test_the_commands_of_leaderboard_exist_whole() -> None:
    said = {tuple(code.split()[1:3]) for code in commands() if code.startswith("leaderboard ")}

    groups = {name: set(commands) for name, (_, commands) in GROUPS.items()}
    assert ("compute", "backlog") in said
    assert {name for name in said if name[0] not in COMMANDS and name[1] not in groups.get(name[0], set())} == set()


def test_the_other_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", read("Makefile"), re.MULTILINE))
    made = {code.split()[1] for code in commands() if code.startswith("make ")}
    scripts = {found[1] for code in commands() if (found := re.match(r"python ([\w/]+\.py)", code))}
    modules = {found[1] for code in commands() if (found := re.match(r"python -m ([\w.]+)", code))}

    assert {"demo", "e2e-aws"} <= made <= targets
    assert scripts
    assert modules
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    assert [name for name in modules if find_spec(name) is None] == []

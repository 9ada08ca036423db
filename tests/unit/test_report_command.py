"""Where `leaderboard demo` and `leaderboard report` leave a report's pages."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.demo import save_reports
from cli.main import app
from cli.report_file import write_page
from cli.submission_progress import Progress
from evaluation.errors import InvalidConfiguration, RequestRefused
from evaluation.submission.model import SubmissionStatus

SEEN = Progress(7, "leaderboard-20-SENSORS", 3, SubmissionStatus.FINISHED)


def test_the_demo_keeps_the_pages_that_there_are(tmp_path: Path) -> None:
    observer: Any = SimpleNamespace(file=lambda _, name: {"report.html": b"full"}.get(name))
    state: Any = SimpleNamespace(folder=tmp_path)

    saved = save_reports(state, observer, SEEN)

    file = tmp_path / "reports" / "submission-7-report.html"
    assert saved == {"Report": str(file)}
    assert file.read_bytes() == b"full"


def test_a_file_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfiguration, match=r"cannot be written to .*file/x.html: .* Choose another file"):
        write_page(tmp_path / "file" / "x.html", b"")


def test_a_report_is_for_one_audience() -> None:
    with pytest.raises(RequestRefused, match="for the team or for operators"):
        app(["report", "7", "--team", "--operator"], exit_on_error=False, result_action="return_value")

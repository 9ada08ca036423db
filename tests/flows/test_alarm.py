"""The sentence that deployments/aws/flow-alarms.yaml counts is written by such runs only, and by all of them."""

import logging
from collections.abc import Iterator

import pytest
from cfnlint.decode import decode

from embedded.aws import TEMPLATES
from evaluation.errors import RequestRefused
from tests.flows.conftest import World
from tests.flows.test_evaluate_submission import run


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What flow runs write; Prefect's loggers do not hand it on to the root logger."""
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def counted(records: list[logging.LogRecord]) -> list[str]:
    """The lines that the metric filter counts: its pattern is a phrase in quotes, found anywhere in a line."""
    content, _ = decode(TEMPLATES / "flow-alarms.yaml")
    pattern = str(content["Resources"]["UndeliveredReports"]["Properties"]["FilterPattern"])
    assert (pattern[0], pattern[-1]) == ('"', '"')
    return [record.getMessage() for record in records if pattern[1:-1] in record.getMessage()]


def test_a_report_that_evalai_did_not_take_is_counted(world: World, lines: pytest.LogCaptureFixture) -> None:
    world.evalai.refuses_reports = RequestRefused("EvalAI refused the result", "unknown metric")

    run(*world.submitted(7))

    assert counted(lines.records) != []


def test_a_report_that_arrived_is_not(world: World, lines: pytest.LogCaptureFixture) -> None:
    run(*world.submitted(7))

    assert len(lines.records) > 0
    assert counted(lines.records) == []

"""What the ends of containers mean together, on a platform that stops them together and on one that does not."""

from typing import Any

import pytest

from evaluation.errors import Fault
from evaluation.pair.diagnosis import (
    ContainerEnd,
    PodEnd,
    StartFailure,
    failure_of_pod,
    failure_to_start,
    quoted,
)
from evaluation.pair.protocol import PairExitCode, failure_of

DECIDED = sorted(set(PairExitCode) - {PairExitCode.FINISHED, PairExitCode.CANCELLED, PairExitCode.PAIR_LOST})


def pod(stops_together: bool = False, reason: str = "", **codes: int | None) -> PodEnd:
    ends = [ContainerEnd(name, code) for name, code in codes.items()]
    return PodEnd(ends, "the template", stops_together, reason)


@pytest.mark.parametrize("stops_together", [True, False])
@pytest.mark.parametrize("exit_code", DECIDED)
@pytest.mark.parametrize("agent", [0, 1, 20, 137, None])
def test_what_the_supervisor_decided_counts_whatever_the_agent_says(
    stops_together: bool, exit_code: PairExitCode, agent: int | None
) -> None:
    ended = pod(stops_together, simulator=int(exit_code), agent=agent, supervisor=int(exit_code))

    assert failure_of_pod(ended) == failure_of(exit_code, f"container supervisor ended with code {int(exit_code)}")


@pytest.mark.parametrize("stops_together", [True, False])
@pytest.mark.parametrize("code", [1, 20, 23, 139])
def test_the_agent_cannot_shift_its_fault(stops_together: bool, code: int) -> None:
    failure = failure_of_pod(pod(stops_together, supervisor=None, simulator=0, agent=code))

    assert failure is not None
    assert (failure.summary, failure.fault) == ("The agent's container ended by itself", Fault.TEAM)


@pytest.mark.parametrize("stops_together", [True, False])
def test_the_agent_may_admit_a_fault(stops_together: bool) -> None:
    failure = failure_of_pod(pod(stops_together, supervisor=30, simulator=30, agent=11))

    assert failure == failure_of(PairExitCode.SENSORS_INVALID, "container agent ended with code 11")


def test_who_was_lost_is_asked_only_where_containers_end_on_their_own() -> None:
    codes: dict[str, Any] = {"supervisor": 23, "simulator": 23, "agent": 1}

    alone, together = failure_of_pod(pod(False, **codes)), failure_of_pod(pod(True, **codes))

    assert alone is not None
    assert together is not None
    assert (alone.summary, alone.fault) == ("The agent's container ended by itself", Fault.TEAM)
    assert (together.summary, together.fault) == (failure_of(PairExitCode.PAIR_LOST).summary, Fault.INFRASTRUCTURE)


@pytest.mark.parametrize(
    ("stops_together", "agent", "fault"),
    [(True, 137, Fault.INFRASTRUCTURE), (True, 143, Fault.INFRASTRUCTURE), (False, 137, Fault.TEAM)],
)
def test_a_container_that_was_stopped_proves_nothing(stops_together: bool, agent: int, fault: Fault) -> None:
    codes = {"supervisor": 30, "simulator": 30} if stops_together else {"supervisor": None, "simulator": None}

    failure = failure_of_pod(pod(stops_together, "stopped by the platform", **codes, agent=agent))

    assert failure is not None
    assert failure.fault is fault
    assert not stops_together or failure.cause == "stopped by the platform"


@pytest.mark.parametrize("ours", ["supervisor", "simulator", "evaluator", "init"])
def test_memory_of_ours_beats_the_agents(ours: str) -> None:
    ends = [ContainerEnd("agent", 137, out_of_memory=True), ContainerEnd(ours, 137, out_of_memory=True)]

    failure = failure_of_pod(PodEnd(ends, "the template"))

    assert failure is not None
    assert (failure.fault, failure.cause) == (Fault.INFRASTRUCTURE, ours)
    assert "the template" in failure.remedy


@pytest.mark.parametrize(
    ("name", "kind", "message", "fault"),
    [
        ("agent", StartFailure.CONTAINER, 'exec: "bash": not found', Fault.TEAM),
        ("agent", StartFailure.CONTAINER, "nvidia-container-cli: no device", Fault.INFRASTRUCTURE),
        ("agent", StartFailure.IMAGE, "manifest unknown", Fault.INFRASTRUCTURE),
        ("simulator", StartFailure.CONTAINER, "no such file", Fault.INFRASTRUCTURE),
        ("", StartFailure.IMAGE, "no basic auth credentials", Fault.INFRASTRUCTURE),
    ],
)
def test_a_container_that_never_ran(name: str, kind: StartFailure, message: str, fault: Fault) -> None:
    failure = failure_to_start(ContainerEnd(name, message=message, start_failure=kind))

    assert (failure.fault, failure.cause) == (fault, message)
    assert failure.remedy


def test_ends_that_explain_nothing() -> None:
    assert failure_of_pod(pod()) is None
    assert failure_of_pod(pod(supervisor=0, simulator=0, agent=0)) is None


def test_a_quote_is_one_short_line_without_a_full_stop() -> None:
    assert quoted("one\n two .") == "one two "
    assert len(quoted("x" * 1000)) == 300
    assert quoted(None) == ""

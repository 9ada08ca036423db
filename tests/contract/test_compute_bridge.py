"""The bridge on a queue of jobs: the jobs of a group are published one after the other."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from compute_client.job import read_message
from evaluation.submission.message import Delivery
from prefect_api.events import OutgoingEvent
from services.bridge import run_bridge
from services.compute_bridge import compute_reader, compute_settings
from tests.contract.compute_harness import ComputeAws
from tests.waiting import PATIENCE_SECONDS, eventually


class Publisher:
    """Notes what rings."""

    def __init__(self) -> None:
        self.events: list[OutgoingEvent] = []

    def publish(self, event: OutgoingEvent) -> None:
        self.events.append(event)

    @property
    def jobs(self) -> list[object]:
        return [event.payload["job_id"] for event in self.events]


@pytest.mark.parametrize("fifo", [False, True])
def test_a_groups_next_job_rings_when_the_one_before_has_ended(aws: dict[str, Any], fifo: bool) -> None:
    harness = ComputeAws(aws, fifo=fifo)
    for job_id, group in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")):
        harness.producer().post_non_blocking(1, job_id=job_id, group=group)
    publisher, stop = Publisher(), threading.Event()
    settings = replace(compute_settings(harness.queue), wait_seconds=0)
    thread = threading.Thread(target=run_bridge, args=(harness.queue, publisher, stop, settings, compute_reader()))
    thread.start()
    try:
        first = {"a1", "b1"} if fifo else {"a1", "a2", "a3", "b1"}
        eventually(lambda: set(publisher.jobs) == first)
        for job_id in ("a1", "a2"):
            (event,) = (event for event in publisher.events if event.payload["job_id"] == job_id)
            assert ("a3" in publisher.jobs) is not fifo
            harness.queue.acknowledge(Delivery.model_validate(event.payload["delivery"]))
            eventually(lambda job_id=job_id: f"a{int(job_id[1]) + 1}" in publisher.jobs)  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert sorted(map(str, publisher.jobs)) == ["a1", "a2", "a3", "b1"]
    assert not harness.received()


def test_a_fifo_queue_gives_ten_of_a_group_to_who_asks_for_ten(aws: dict[str, Any]) -> None:
    """Why compute_settings asks for one."""
    harness = ComputeAws(aws, fifo=True)
    for job_id in ("a1", "a2"):
        harness.producer().post_non_blocking(1, job_id=job_id, group="a")

    assert [read_message(message.body) for message in harness.received()] == ["a1", "a2"]

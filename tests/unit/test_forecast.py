"""When a submission is expected to start and to end."""

from datetime import UTC, datetime, timedelta

import pytest

from evaluation.lifecycle.forecast import Forecast, Past, forecast, median_off, past_of, read_forecast
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.pair.observations import Observations, SeenStart
from evaluation.pair.timeline import timelines
from evaluation.queue_place import QueuePlace
from evaluation.shards import ShardState, ShardStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PAST = (
    Past(1, waited_seconds=60.0, pair_seconds=(500.0, 700.0), off=0.1),
    Past(2, waited_seconds=120.0, pair_seconds=(600.0, 600.0), off=0.3),
    Past(3, waited_seconds=180.0, pair_seconds=(600.0, 1000.0), off=None),
)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def queued(index: int, position: int, waiting: int = 12, running: int = 4) -> ShardStatus:
    place = QueuePlace(position, waiting, running, "4 of 4 GPU slots are in use")
    return ShardStatus(index, ShardState.WAITING, str(place), queue=place)


def views(*done: int) -> list[ShardProgress]:
    return [ShardProgress(index, ShardState.DRIVING, each, 5, "") for index, each in enumerate(done)]


def test_a_queue_moves_by_a_mean_duration_divided_by_its_slots() -> None:
    seen = forecast(Forecast(1), {0: queued(0, 3), 1: queued(1, 7)}, views(0, 0), PAST, NOW)

    assert seen.queue
    assert seen.queue.position == 3
    assert seen.start == after(3 * 600 / 4)
    assert seen.end == after(7 * 600 / 4 + 700)
    assert (seen.first_start, seen.first_end, seen.made_at) == (seen.start, seen.end, NOW)
    assert seen.sentence == (
        "queued: 3 of 12 (4 of 4 GPU slots are in use); expected to start at 2026-11-28 12:07:30 UTC; "
        "expected to end at 2026-11-28 12:29:10 UTC"
    )


def test_without_a_queue_the_wait_of_earlier_ones_counts_and_never_lies_in_the_past() -> None:
    waits = {0: ShardStatus(0, ShardState.WAITING, "no node has room yet")}

    first = forecast(Forecast(1), waits, views(0), PAST, NOW)
    later = forecast(first, waits, views(0), PAST, after(500))

    assert first.start == after(120)
    assert later.start == after(500)
    assert later.first_start == after(120)


def test_once_it_drives_the_pace_counts_by_what_is_done() -> None:
    drives = {0: ShardStatus(0, ShardState.DRIVING), 1: ShardStatus(1, ShardState.FINISHED)}
    first = forecast(Forecast(1), drives, views(0, 0), PAST, NOW)

    half = forecast(first, drives, views(0, 5), PAST, after(100))

    assert (first.start, first.end, first.started) == (NOW, after(700), True)
    assert half.start == NOW
    assert half.end == after(100 + 0.5 * 100 + 0.5 * 600)
    assert "start" not in half.sentence


def test_without_earlier_submissions_only_the_place_is_known() -> None:
    seen = forecast(Forecast(1), {0: queued(0, 3)}, views(0), (), NOW)

    assert (seen.start, seen.end, seen.first_end) == (None, None, None)
    assert seen.sentence == "queued: 3 of 12 (4 of 4 GPU slots are in use)"
    assert Forecast(1).sentence == ""


def test_the_true_times_take_the_place_of_the_expected_and_the_error_is_kept() -> None:
    seen = Observations().with_new_start(SeenStart(1, 1, after(300), after(310), after(1010)), ())
    [timeline] = timelines({0: seen, 1: None}, 1, NOW)
    made = Forecast(1, first_start=after(200), first_end=after(800), made_at=after(10))

    ended, past = made.over(timeline), past_of(7, timeline, made)

    assert (ended.start, ended.end, ended.started, ended.ended) == (after(300), after(1010), True, True)
    assert ended.first_end == after(800)
    assert past
    assert (past.waited_seconds, past.pair_seconds) == (300.0, (710.0,))
    assert past.off == pytest.approx(0.21)


def test_how_good_past_estimates_were_is_a_median_of_those_that_were_made() -> None:
    assert median_off(PAST) == (pytest.approx(0.2), 2)
    assert median_off(PAST[2:]) is None


def test_the_ledger_keeps_it_and_what_is_none_is_none() -> None:
    seen = forecast(Forecast(2), {0: queued(0, 3)}, views(0), PAST, NOW)

    assert read_forecast(seen.described()) == seen
    for broken in (None, "x", {}, {"attempt": "x"}, {"attempt": 1, "start": "noon"}, {"attempt": 1, "queue": {"a": 1}}):
        assert read_forecast(broken) is None


def test_times_that_a_person_wrote_are_in_utc_or_none() -> None:
    read = read_forecast({"attempt": 1, "end": "2026-11-28T12:00:00"})

    assert read is not None
    assert read.end == datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert read_forecast({"attempt": 1, "end": "0001-01-01T00:00:00+14:00"}) is None  # has no time in UTC

"""The ledger's claims, writes and rows, in DynamoDB and in memory; and what AWS's refusals become."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from aws_blocks import UNREACHABLE, a_submission, credentials_of
from ledger_harness import ENDED, LEASE, LEDGERS, Harness, entry_of, ledger_harness

from blocks.ledger_table import LedgerTable, claim_key
from evaluation.errors import AlreadyClaimed, InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import read_entry
from evaluation.lifecycle.stages import Stage
from evaluation.ports import SubmissionLedger
from evaluation.submission.model import SubmissionStatus

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ENDS_OF_THE_CALENDAR = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
RESUMED = datetime(2026, 11, 22, 9, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=LEDGERS)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    with ledger_harness(request) as harness:
        harness.now = NOON
        yield harness


@pytest.fixture
def ledger(harness: Harness) -> SubmissionLedger:
    return harness.ledger


def test_a_first_claim_writes_who_what_and_when(ledger: SubmissionLedger) -> None:
    claim = ledger.claim(a_submission(), "run-a")
    assert (claim.submission, claim.team, claim.key, claim.owner, claim.attempt, claim.is_takeover) == (
        (90, 7, "", "run-a", 1, False)
    )
    row = dict(ledger.row(7, 90) or {})
    assert row.pop("lease-renewal")
    assert row == {
        "team-id": "7",
        "submission-id": "90",
        "team-name": "Team Röcket & friends",
        "challenge-id": "1",
        "phase-id": "2203",
        "phase": "leaderboard-20-SENSORS",
        "track": "SENSORS",
        "cluster": "leaderboard-20",
        "image": "registry.example/team:1",
        "submitted-at": "2026-11-21T01:00:00+00:00",
        "status": "submitted",
        "start-time": "2026-11-21T12:00:00+00:00",
        "claimed-at": "2026-11-21T12:00:00+00:00",
        "claim-key": "",
        "claim-owner": "run-a",
        "claim-epoch": 1,
        "claim-token": claim.token,
        "lease-until": "2026-11-21T12:03:00+00:00",
        "attempt": 1,
        "stage": "claimed",
        "stage-since": "2026-11-21T12:00:00+00:00",
    }


def test_a_duplicate_is_told_who_has_it_and_since_when(ledger: SubmissionLedger) -> None:
    ledger.claim(a_submission(), "run-a")
    with pytest.raises(AlreadyClaimed, match=r"Submission 90 .* flow run run-a since 2026-11-21T12:00:00\+00:00"):
        ledger.claim(a_submission(), "run-b")
    assert (ledger.row(7, 90) or {})["claim-owner"] == "run-a"


def test_the_owner_finds_its_claim_again(ledger: SubmissionLedger) -> None:
    first = ledger.claim(a_submission(), "run-a")
    again = ledger.claim(a_submission(), "run-a")
    assert (again.attempt, again.is_takeover, again.key) == (first.attempt, True, first.key)

    ledger.update(again, {"end-time": "2026-11-21T10:00:00Z"})
    with pytest.raises(AlreadyClaimed, match="Submission 90 was evaluated already, until 2026-11-21T10:00:00Z"):
        ledger.claim(a_submission(), "run-a")


def test_a_resume_takes_over_and_keeps_what_is_known(ledger: SubmissionLedger) -> None:
    old = ledger.claim(a_submission(), "run-a")
    ledger.update(old, {"status": "failed", "Driving score": 12.5, "end-time": NOON})
    new = ledger.claim(a_submission(resumed=RESUMED, image=None), "run-b")
    row = ledger.row(7, 90) or {}
    assert (new.attempt, new.is_takeover, new.key) == (2, False, "2026-11-22T09:30:00.123456Z")
    assert (row["status"], row["Driving score"], row["image"]) == ("resuming", 12.5, "registry.example/team:1")
    assert "end-time" not in row
    with pytest.raises(AlreadyClaimed, match="flow run run-b"):
        ledger.update(old, {"status": "finished"})
    with pytest.raises(AlreadyClaimed, match="flow run run-b"):
        ledger.claim(a_submission(), "run-a")
    assert (ledger.row(7, 90) or {})["status"] == "resuming"


def test_a_row_of_the_original_system_can_be_claimed(harness: Harness) -> None:
    score = {"Driving score": Decimal("3.25")}
    harness.put_row({"team-id": "7", "submission-id": "90", "status": "FINISHED", **score})
    ledger = harness.ledger
    claim = ledger.claim(a_submission(), "run-a")
    assert (claim.attempt, claim.is_takeover) == (1, False)
    assert (ledger.row(7, 90) or {})["Driving score"] == 3.25


def test_update_writes_metrics_and_removes_nones(ledger: SubmissionLedger) -> None:
    claim = ledger.claim(a_submission(), "run-a")
    ledger.update(claim, {"reason": "x", "Collisions with pedestrians": 0.1 + 0.2, "tiny": 1e-300})
    ledger.update(claim, {"reason": None, "status": SubmissionStatus.FINISHED, "shards": [{"index": 0, "km": 1.5}]})
    row = ledger.row(7, 90) or {}
    assert row["Collisions with pedestrians"] == 0.1 + 0.2
    assert (row["tiny"], row["status"], row["shards"]) == (0, "finished", [{"index": 0, "km": 1.5}])
    assert "reason" not in row


def test_an_update_of_nothing_still_checks_the_claim(ledger: SubmissionLedger) -> None:
    claim = ledger.claim(a_submission(), "run-a")
    ledger.update(claim, {})
    ledger.claim(a_submission(resumed=RESUMED), "run-b")
    with pytest.raises(AlreadyClaimed):
        ledger.update(claim, {})


def test_an_update_does_not_bring_a_removed_row_back(harness: Harness) -> None:
    ledger = harness.ledger
    claim = ledger.claim(a_submission(), "run-a")
    harness.remove(90)
    with pytest.raises(AlreadyClaimed, match="was removed"):
        ledger.update(claim, {"status": "finished"})
    assert ledger.row(7, 90) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), 10.0**200, {"deep": [float("nan")]}])
def test_a_value_that_cannot_be_stored_is_named(ledger: SubmissionLedger, value: object) -> None:
    claim = ledger.claim(a_submission(), "run-a")
    with pytest.raises(RequestRefused, match="'Driving score'"):
        ledger.update(claim, {"Driving score": value})


@pytest.mark.parametrize(
    "name",
    [
        "team-id",
        "submission-id",
        "claim-key",
        "claim-owner",
        "claimed-at",
        "claim-epoch",
        "claim-token",
        "lease-until",
        "lease-renewal",
        "report-resends",
        "attempt",
        "stage",
    ],
)
def test_the_claim_itself_is_not_overwritten(ledger: SubmissionLedger, name: str) -> None:
    claim = ledger.claim(a_submission(), "run-a")
    with pytest.raises(RequestRefused, match=name):
        ledger.update(claim, {name: "x"})


def test_a_renewal_says_that_the_run_lives_and_which_stage_it_enters(harness: Harness) -> None:
    claim = harness.ledger.claim(a_submission(), "run-a")
    harness.now = NOON + timedelta(minutes=1)
    harness.ledger.renew(claim, Stage.SIMULATING)
    harness.now = NOON + timedelta(minutes=2)

    harness.ledger.renew(claim)

    entry = entry_of(harness)
    assert (entry.stage, entry.stage_since) == (Stage.SIMULATING, NOON + timedelta(minutes=1))
    assert entry.lease_until == NOON + timedelta(minutes=2, seconds=harness.ledger.lease_seconds)
    assert entry.time_in_stage(timedelta(seconds=harness.ledger.lease_seconds)) == timedelta(minutes=1)


def test_every_renewal_can_be_told_from_the_one_before_though_the_clock_stands_still(harness: Harness) -> None:
    claim = harness.ledger.claim(a_submission(), "run-a")
    signs = [entry_of(harness).sign_of_life]
    for write in (
        lambda: harness.ledger.renew(claim),
        lambda: harness.ledger.update(claim, {}),
        lambda: harness.ledger.with_own_connection().renew(claim),
        lambda: harness.ledger.claim(a_submission(), "run-a", 2),
    ):
        write()
        signs.append(entry_of(harness).sign_of_life)
    assert len({*signs}) == 5


def test_the_ledger_counts_how_often_a_report_was_sent_again_until_a_resume(harness: Harness) -> None:
    for epoch in (1, 2, 3):
        claim = harness.ledger.claim(a_submission(), "run-a", epoch)
        harness.ledger.update(claim, {"status": "finished", "outcome": "kept", **ENDED})
        if epoch < 3:
            harness.ledger.reopen(entry_of(harness))
    assert entry_of(harness).resends == 2

    harness.ledger.claim(a_submission(resumed=RESUMED), "run-b")
    assert entry_of(harness).resends == 0


@pytest.mark.parametrize("name", ["team-id", "challenge-id", "phase-id", "attempt"])
def test_a_claimed_row_that_makes_no_sense_is_named_and_hides_no_other(harness: Harness, name: str) -> None:
    harness.ledger.claim(a_submission(91), "run-a")
    broken = {"team-id": "7", "submission-id": "90", "challenge-id": "1", "phase-id": "1", "attempt": 1}
    harness.put_row({**broken, "claim-owner": "run-a", name: "٣"})  # a digit to Python's isdigit, and to nobody else

    entries = {entry.submission: entry.unreadable for entry in harness.ledger.entries()}

    assert entries == {90: f"{name} is '٣'", 91: ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("attempt", "9" * 5000), ("claim-epoch", "9" * 5000), ("report-resends", "9" * 5000)],
        *[(name, time) for name in ("lease-until", "stage-since", "end-time") for time in ENDS_OF_THE_CALENDAR],
    ],
)
def test_a_row_with_what_nobody_can_calculate_with_hides_no_other(harness: Harness, name: str, value: str) -> None:
    harness.ledger.claim(a_submission(91), "run-a")
    broken = {"team-id": "7", "submission-id": "90", "challenge-id": "1", "phase-id": "1", "attempt": 1}
    harness.put_row({**broken, "claim-owner": "run-a", name: value})

    entries = {entry.submission: entry for entry in harness.ledger.entries()}

    assert set(entries) == {90, 91}
    assert entries[90].time_in_stage(LEASE) is None


def test_the_entries_are_all_claimed_rows_of_however_many_pages(harness: Harness) -> None:
    ledger = harness.ledger
    harness.put_row({"team-id": "7", "submission-id": "1"})  # of the original system
    padding = "x" * 300_000  # DynamoDB's pages end at 1 MB
    for pk in range(90, 96):
        ledger.update(ledger.claim(a_submission(pk), f"run-{pk}"), {"reason": padding})

    entries = sorted(ledger.entries(), key=lambda entry: entry.submission)

    assert entries == [read_entry(ledger.row(7, pk)) for pk in range(90, 96)]
    assert [(entry.team, entry.owner, entry.attempt) for entry in entries] == [
        (7, f"run-{pk}", 1) for pk in range(90, 96)
    ]


def test_an_unknown_row_is_none(ledger: SubmissionLedger) -> None:
    assert ledger.row(7, 90) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda ledger: ledger.row(7, 90),
        lambda ledger: ledger.claim(a_submission(), "run-a"),
    ],
)
def test_aws_errors_are_translated(aws: dict[str, Any], call: Callable[[LedgerTable], object]) -> None:
    with pytest.raises(InvalidConfiguration, match="submission 90 in DynamoDB table no-such-table failed"):
        call(LedgerTable(table="no-such-table", credentials=credentials_of(aws)))
    with pytest.raises(ServiceUnavailable, match="AWS does not answer"):
        call(LedgerTable(table="leaderboard-20", credentials=credentials_of(aws, endpoint_url=UNREACHABLE)))
    with pytest.raises(InvalidConfiguration, match="AWS client for dynamodb"):
        call(LedgerTable(table="leaderboard-20", credentials=credentials_of(aws, endpoint_url="not an address")))


def test_claim_keys_sort_like_times() -> None:
    moments = [RESUMED + timedelta(microseconds=step) for step in (-123456, -1, 0, 1, 10**6, 10**11)]
    keys = [claim_key(moment) for moment in moments]
    assert keys == sorted(keys)
    assert {len(key) for key in keys} == {27}
    assert claim_key(None) == "" < keys[0]
    assert claim_key(RESUMED.astimezone(timezone(timedelta(hours=-8)))) == claim_key(RESUMED)
    assert claim_key(RESUMED.replace(tzinfo=None)) == claim_key(RESUMED)

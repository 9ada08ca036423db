"""The submission ledger in DynamoDB: one row per submission, the truth about who evaluates what.

Keys: `team-id` and `submission-id`, both strings (docs/aws.md, "Names"). Rows of the original system lack the claim's
attributes and count as never claimed.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, cast

from botocore.exceptions import ClientError
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field, PrivateAttr

from aws_api.dynamodb_conditions import refusing_row
from aws_api.dynamodb_expression import Expression
from aws_api.dynamodb_values import decode
from aws_api.errors import aws_errors
from aws_api.shared_document import SharedRow
from blocks.aws_client import aws_client, own_client
from blocks.schema_once import SchemaOnce
from evaluation.errors import AlreadyClaimed, RequestRefused
from evaluation.lifecycle.ledger_entry import (
    ATTEMPT,
    CHALLENGE,
    CLAIM_EPOCH,
    CLAIM_KEY,
    CLAIM_OWNER,
    CLAIM_TOKEN,
    CLAIMED_AT,
    CLUSTER,
    END_TIME,
    FAULT,
    FORECAST,
    IMAGE,
    LEASE_RENEWAL,
    LEASE_UNTIL,
    OUTCOME,
    PHASE,
    PHASE_ID,
    REASON,
    REFUSED,
    REMARKS,
    RESENDS,
    STAGE,
    STAGE_SINCE,
    STATUS,
    SUBMISSION,
    SUBMITTED_AT,
    TEAM,
    TEAM_NAME,
    UNDELIVERED,
    LedgerEntry,
    claim_key,
    read_entry,
)
from evaluation.lifecycle.stages import LEASE_SECONDS, Stage
from evaluation.ports import Claim, Row
from evaluation.submission.model import Submission

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

# What a new claim removes: the row then speaks of this attempt only.
_OF_THE_ATTEMPT = (END_TIME, OUTCOME, UNDELIVERED, REFUSED, REASON, FAULT, REMARKS, RESENDS, FORECAST)
_OF_THE_CLAIM = {CLAIM_KEY, CLAIM_OWNER, CLAIMED_AT, CLAIM_EPOCH, CLAIM_TOKEN, LEASE_UNTIL, LEASE_RENEWAL}
_RESERVED = frozenset({TEAM, SUBMISSION, ATTEMPT, STAGE, RESENDS} | _OF_THE_CLAIM)
SHARED = "shared"  # stands for the team's id in rows that are no submission's

Key = Mapping[str, Any]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LedgerTable(SchemaOnce, Block):
    """Who evaluates which submission, and what came of it: a DynamoDB table."""

    _block_type_name = "Ledger Table"
    _block_type_slug = "ledger-table"
    _description = "The DynamoDB table with one row per submission."

    table: str = Field(
        description="DynamoDB table with partition key team-id and sort key submission-id, both strings."
    )
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )
    lease_seconds: int = Field(
        default=LEASE_SECONDS,
        ge=3,
        description="A run that has not renewed its claim for so long counts as dead, and another takes over.",
    )

    _now: Callable[[], datetime] = PrivateAttr(default_factory=lambda: _utc_now)  # pydantic binds a default
    _own_client: "DynamoDBClient | None" = PrivateAttr(default=None)

    def with_clock(self, now: Callable[[], datetime]) -> Self:
        """The same ledger by another clock, which has to be UTC."""
        ledger = self.model_copy()
        ledger._now = now
        return ledger

    def with_own_connection(self) -> Self:
        """The same ledger over a connection that nothing else uses, and that gives up in a ninth of the lease."""
        ledger = self.model_copy()
        with aws_errors("Preparing the AWS client for dynamodb"):
            ledger._own_client = own_client(self.credentials, "dynamodb", self.lease_seconds / 9)
        return ledger

    def claim(self, submission: Submission, owner: str, epoch: int = 1) -> Claim:
        """Take the submission in one conditional write; raises AlreadyClaimed naming the owner and the time.

        Only a later `rerun_resumed_at` than the row's makes a new claim. DynamoDB counts the attempt in the same
        write, so that no claim is lost between a read and a write. The owner of an evaluation that has not ended may
        take it again with the same or a later `epoch`; the earlier holder has lost it, and the time in the
        stage counts anew.
        """
        key, token = claim_key(submission.rerun_resumed_at), uuid.uuid4().hex
        with aws_errors(f"Claiming submission {submission.pk} in DynamoDB table {self.table}"):
            try:
                answer = self._client().update_item(**self._new_claim(submission, owner, epoch, key, token))
            except ClientError as error:
                row = refusing_row(error)
                if row.get(CLAIM_OWNER) != owner or row.get(CLAIM_KEY) != key:
                    raise _claimed_by_another(submission.pk, row) from error
                return self._claim_again(submission, owner, epoch, key, token)
        attempt = cast(int, decode(answer["Attributes"])[ATTEMPT])
        return Claim(submission.pk, submission.team_pk, key, owner, attempt, epoch, token, is_takeover=False)

    def _new_claim(self, submission: Submission, owner: str, epoch: int, key: str, token: str) -> dict[str, Any]:
        now = self._now()
        expression = Expression()
        values = {
            **_description(submission),
            CLAIM_KEY: key,
            CLAIM_OWNER: owner,
            CLAIMED_AT: now,
            "start-time": now,
            **self._held(epoch, token),
            **_stage(Stage.CLAIMED, now),
        }
        expression.set({name: value for name, value in values.items() if value is not None})
        attempt = expression.name(ATTEMPT)
        expression.sets.append(
            f"{attempt} = if_not_exists({attempt}, {expression.value('', 0)}) + {expression.value('', 1)}"
        )
        expression.remove(*_OF_THE_ATTEMPT)
        held = expression.name(CLAIM_KEY)
        return {
            "TableName": self.table,
            "Key": _key(submission.team_pk, submission.pk),
            "ConditionExpression": f"attribute_not_exists({held}) OR {held} < {expression.value(CLAIM_KEY, key)}",
            "ReturnValues": "UPDATED_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.arguments(),
        }

    def _claim_again(self, submission: Submission, owner: str, epoch: int, key: str, token: str) -> Claim:
        expression = Expression()
        expression.set({**self._held(epoch, token), **_stage(Stage.CLAIMED, self._now())})
        row = self._write(
            submission.team_pk,
            submission.pk,
            expression,
            f"{expression.name(CLAIM_OWNER)} = {expression.value(CLAIM_OWNER, owner)}",
            f"{expression.name(CLAIM_KEY)} = {expression.value(CLAIM_KEY, key)}",
            _earlier_or_equal(expression, epoch),
            f"attribute_not_exists({expression.name(END_TIME)})",
        )
        attempt = cast(int, row[ATTEMPT])
        return Claim(submission.pk, submission.team_pk, key, owner, attempt, epoch, token, is_takeover=True)

    def _held(self, epoch: int, token: str) -> dict[str, object]:
        return {CLAIM_EPOCH: epoch, CLAIM_TOKEN: token, **self._lease()}

    def _lease(self) -> dict[str, object]:
        until = self._now() + timedelta(seconds=self.lease_seconds)
        return {LEASE_UNTIL: until, LEASE_RENEWAL: uuid.uuid4().hex}

    def update(self, claim: Claim, values: Row) -> None:
        """Write attributes of the claimed row; None removes one. Raises AlreadyClaimed where the claim has passed on.

        Raises RequestRefused for a value that DynamoDB cannot hold (NaN, infinity), and for the keys and the claim.
        """
        if reserved := sorted(_RESERVED & values.keys()):
            raise RequestRefused(f"The ledger's own attributes cannot be written: {', '.join(reserved)}")
        self._write_held(claim, {**values, **self._lease()})

    def renew(self, claim: Claim, stage: Stage | None = None) -> None:
        """Renew the lease, and set the stage that the run enters; raises AlreadyClaimed where the claim was taken."""
        self._write_held(claim, {**self._lease(), **(_stage(stage, self._now()) if stage else {})})

    def _write_held(self, claim: Claim, values: Row) -> None:
        expression = Expression()
        expression.set({name: value for name, value in values.items() if value is not None})
        expression.remove(*(name for name, value in values.items() if value is None))
        token = f"{expression.name(CLAIM_TOKEN)} = {expression.value(CLAIM_TOKEN, claim.token)}"
        self._write(claim.team, claim.submission, expression, token)

    def reopen(self, entry: LedgerEntry, decided: str | None = None) -> None:
        """Let a run take the ended evaluation once more, to send its kept outcome again; the row counts how often.

        With `decided`, the key of the outcome that an operator has decided, that one is sent instead, and not counted.
        Raises AlreadyClaimed where it has not ended, or is no longer that of the entry: the entry may be old.
        """
        expression = Expression()
        change = {OUTCOME: decided} if decided else {RESENDS: entry.resends + 1}
        expression.set({LEASE_UNTIL: self._now(), LEASE_RENEWAL: uuid.uuid4().hex, **change})
        expression.remove(END_TIME, CLAIM_TOKEN)  # the run that ended it cannot end it again
        self._write(
            entry.team,
            entry.submission,
            expression,
            f"{expression.name(CLAIM_OWNER)} = {expression.value(CLAIM_OWNER, entry.owner)}",
            f"{expression.name(CLAIM_KEY)} = {expression.value(CLAIM_KEY, entry.key)}",
            f"{expression.name(CLAIM_EPOCH)} = {expression.value(CLAIM_EPOCH, entry.epoch)}",
            f"attribute_exists({expression.name(END_TIME)})",
            f"attribute_exists({expression.name(OUTCOME)})",
        )

    def _write(self, team: int, submission: int, expression: Expression, *conditions: str) -> Row:
        """One conditional write; returns the row after it, raises AlreadyClaimed where a condition does not hold."""
        with aws_errors(f"Writing the row of submission {submission} in DynamoDB table {self.table}"):
            try:
                answer = self._client().update_item(
                    TableName=self.table,
                    Key=_key(team, submission),
                    ConditionExpression=" AND ".join(conditions),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **expression.arguments(),
                )
            except ClientError as error:
                raise _claimed_by_another(submission, refusing_row(error)) from error
        return decode(answer["Attributes"])

    def entries(self) -> Iterator[LedgerEntry]:
        """Every row that somebody of ours has claimed. Reads the whole table, page by page."""
        with aws_errors(f"Reading DynamoDB table {self.table}"):
            pages = self._client().get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
            for page in pages:
                for item in page["Items"]:
                    entry = read_entry(decode(item))
                    if entry:
                        yield entry

    def row(self, team: int, submission: int) -> Row | None:
        """The row as it is, numbers as int or float, or None."""
        with aws_errors(f"Reading the row of submission {submission} in DynamoDB table {self.table}"):
            answer = self._client().get_item(TableName=self.table, Key=_key(team, submission), ConsistentRead=True)
        return decode(answer["Item"]) if "Item" in answer else None

    def shared_document(self, name: str) -> SharedRow:
        """A row of this table that is no submission's: what the processes of the installation share under the name."""
        client = cast("DynamoDBClient", aws_client(self.credentials, "dynamodb"))
        return SharedRow(client, self.table, {TEAM: SHARED, SUBMISSION: name})

    def _client(self) -> "DynamoDBClient":
        return self._own_client or cast("DynamoDBClient", aws_client(self.credentials, "dynamodb"))


def _key(team: int, submission: int) -> Key:
    return {TEAM: {"S": str(team)}, SUBMISSION: {"S": str(submission)}}


def _description(submission: Submission) -> dict[str, object]:
    # None leaves what an earlier attempt wrote: a resume's message may come without its image.
    return {
        TEAM_NAME: submission.team_name,
        CHALLENGE: str(submission.challenge_pk),
        PHASE_ID: str(submission.phase_pk),
        PHASE: submission.phase.codename,
        "track": submission.phase.track,
        CLUSTER: submission.phase.cluster,
        IMAGE: submission.image,
        SUBMITTED_AT: submission.submitted_at,
        STATUS: submission.status,
    }


def _earlier_or_equal(expression: Expression, epoch: int) -> str:
    """The row's epoch is not later; one that an earlier version of ours claimed has none."""
    held = expression.name(CLAIM_EPOCH)
    return f"(attribute_not_exists({held}) OR {held} <= {expression.value(CLAIM_EPOCH, epoch)})"


def _stage(stage: Stage, now: datetime) -> dict[str, object]:
    return {STAGE: stage.value, STAGE_SINCE: now}


def _claimed_by_another(submission: int, row: Row) -> AlreadyClaimed:
    if CLAIM_OWNER not in row:
        return AlreadyClaimed(f"The claim of submission {submission} is gone", "its row in the ledger was removed")
    if END_TIME in row:
        return AlreadyClaimed(f"Submission {submission} was evaluated already, until {row[END_TIME]}")
    since, epoch = row.get(CLAIMED_AT, "an unknown time"), row.get(CLAIM_EPOCH, 1)
    run = f"flow run {row[CLAIM_OWNER]}" if epoch == 1 else f"epoch {epoch} of flow run {row[CLAIM_OWNER]}"
    return AlreadyClaimed(f"Submission {submission} is evaluated by {run} since {since}")

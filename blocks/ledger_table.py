"""The submission ledger in DynamoDB: one row per submission, the truth about who evaluates what.

Keys: `team-id` and `submission-id`, both strings (contracts/aws.md). Rows of the original system lack the claim's
attributes and count as never claimed.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from botocore.exceptions import ClientError
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field, PrivateAttr

from blocks.aws_errors import aws_client, aws_errors, error_code
from blocks.dynamodb_values import decode, encode
from evaluation.errors import AlreadyClaimed, RequestRefused
from evaluation.ports import Claim, Row
from evaluation.submission import Submission

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

CLAIM_KEY, CLAIM_OWNER, CLAIMED_AT, ATTEMPT = "claim-key", "claim-owner", "claimed-at", "attempt"
TEAM, SUBMISSION = "team-id", "submission-id"
END_TIME = "end-time"  # on the row from the moment an evaluation has ended until a resume
_RESERVED = frozenset({TEAM, SUBMISSION, CLAIM_KEY, CLAIM_OWNER, CLAIMED_AT, ATTEMPT})

Key = Mapping[str, Any]


def claim_key(rerun_resumed_at: datetime | None) -> str:
    """`2026-11-21T01:37:57.537792Z`: UTC and of fixed width, so that text order is time order; "" for a first run.

    EvalAI sends UTC; a time without a zone is read as UTC.
    """
    if rerun_resumed_at is None:
        return ""
    moment = rerun_resumed_at if rerun_resumed_at.tzinfo else rerun_resumed_at.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LedgerTable(Block):
    """Who evaluates which submission, and what came of it: a DynamoDB table."""

    _block_type_name = "Ledger Table"
    _block_type_slug = "ledger-table"
    _description = "The DynamoDB table with one row per submission."

    table: str = Field(
        description="DynamoDB table with partition key team-id and sort key submission-id, both strings."
    )
    credentials: AwsCredentials

    _now: Callable[[], datetime] = PrivateAttr(default_factory=lambda: _utc_now)  # pydantic binds a default

    def with_clock(self, now: Callable[[], datetime]) -> Self:
        """The same ledger by another clock, which has to tell UTC."""
        ledger = self.model_copy()
        ledger._now = now
        return ledger

    def claim(self, submission: Submission, owner: str) -> Claim:
        """Take the submission in one conditional write; raises AlreadyClaimed naming the owner and the time.

        Only a later `rerun_resumed_at` than the row's takes over. DynamoDB counts the attempt in the same write, so
        that no claim is lost between a read and a write.
        """
        key = claim_key(submission.rerun_resumed_at)
        with aws_errors(f"Claiming submission {submission.pk} in DynamoDB table {self.table}"):
            try:
                answer = self._client().update_item(**self._takeover(submission, owner, key))
            except ClientError as error:
                row = _refused_row(error)
                if own := _own_claim(submission, owner, key, row):
                    return own
                raise _claimed_by_another(submission.pk, row) from error
        attempt = cast(int, decode(answer["Attributes"])[ATTEMPT])
        return Claim(submission.pk, submission.team_pk, key, owner, attempt, again=False)

    def _takeover(self, submission: Submission, owner: str, key: str) -> dict[str, Any]:
        values = {**_description(submission), **_claim_values(owner, key, self._now())}
        expression = Expression()
        expression.set({name: value for name, value in values.items() if value is not None})
        attempt = expression.name(ATTEMPT)
        expression.sets.append(
            f"{attempt} = if_not_exists({attempt}, {expression.value('', 0)}) + {expression.value('', 1)}"
        )
        expression.remove(END_TIME)  # a resumed submission has not ended
        held = expression.name(CLAIM_KEY)
        return {
            "TableName": self.table,
            "Key": _key(submission.team_pk, submission.pk),
            "ConditionExpression": f"attribute_not_exists({held}) OR {held} < {expression.value(CLAIM_KEY, key)}",
            "ReturnValues": "UPDATED_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.arguments(),
        }

    def update(self, claim: Claim, values: Row) -> None:
        """Write attributes of the claimed row; None removes one. Raises AlreadyClaimed where the claim has passed on.

        Raises RequestRefused for a value that DynamoDB cannot hold (NaN, infinity), and for the keys and the claim.
        """
        if reserved := sorted(_RESERVED & values.keys()):
            raise RequestRefused(f"The ledger's own attributes cannot be written: {', '.join(reserved)}")
        expression = Expression()
        # A write of nothing writes the claim's own key, so that it checks the claim like any other.
        expression.set({name: value for name, value in (values or {CLAIM_KEY: claim.key}).items() if value is not None})
        expression.remove(*(name for name, value in values.items() if value is None))
        condition = f"{expression.name(CLAIM_KEY)} = {expression.value(CLAIM_KEY, claim.key)}"
        condition += f" AND {expression.name(CLAIM_OWNER)} = {expression.value(CLAIM_OWNER, claim.owner)}"
        with aws_errors(f"Writing the row of submission {claim.submission} in DynamoDB table {self.table}"):
            try:
                self._client().update_item(
                    TableName=self.table,
                    Key=_key(claim.team, claim.submission),
                    ConditionExpression=condition,
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **expression.arguments(),
                )
            except ClientError as error:
                raise _claimed_by_another(claim.submission, _refused_row(error)) from error

    def held(self, submission: Submission, owner: str) -> Claim | None:
        """The claim that `owner` holds on the submission and has not ended (no `end-time`) yet, or None."""
        row = self.row(submission.team_pk, submission.pk) or {}
        attempt = row.get(ATTEMPT)
        if row.get(CLAIM_OWNER) != owner or END_TIME in row or not isinstance(attempt, int):
            return None
        return Claim(submission.pk, submission.team_pk, str(row[CLAIM_KEY]), owner, attempt, again=True)

    def row(self, team: int, submission: int) -> Row | None:
        """The row as it is, numbers as int or float, or None."""
        with aws_errors(f"Reading the row of submission {submission} in DynamoDB table {self.table}"):
            answer = self._client().get_item(TableName=self.table, Key=_key(team, submission), ConsistentRead=True)
        return decode(answer["Item"]) if "Item" in answer else None

    def _client(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", aws_client(self.credentials, "dynamodb"))


class Expression:
    """An update's expression with a placeholder for every name and value: metric names contain spaces."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self._removes: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#n{len(self._names)}")

    def value(self, attribute: str, value: object) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = encode(attribute, value)
        return placeholder

    def set(self, values: Row) -> None:
        self.sets += [f"{self.name(attribute)} = {self.value(attribute, value)}" for attribute, value in values.items()]

    def remove(self, *attributes: str) -> None:
        self._removes += [self.name(attribute) for attribute in attributes]

    def arguments(self) -> dict[str, Any]:
        clauses = [("SET", self.sets), ("REMOVE", self._removes)]
        update = " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts)
        return {
            **({"UpdateExpression": update} if update else {}),
            "ExpressionAttributeNames": {placeholder: name for name, placeholder in self._names.items()},
            "ExpressionAttributeValues": self._values,
        }


def _key(team: int, submission: int) -> Key:
    return {TEAM: {"S": str(team)}, SUBMISSION: {"S": str(submission)}}


def _description(submission: Submission) -> dict[str, object]:
    # None leaves what an earlier attempt wrote: a resume's message may come without its image.
    return {
        "team-name": submission.team_name,
        "challenge-id": str(submission.challenge_pk),
        "phase-id": str(submission.phase_pk),
        "phase": submission.phase.codename,
        "track": submission.phase.track,
        "cluster": submission.phase.cluster,
        "image": submission.image,
        "submitted-at": submission.submitted_at,
        "status": submission.status,
    }


def _claim_values(owner: str, key: str, now: datetime) -> dict[str, object]:
    return {CLAIM_KEY: key, CLAIM_OWNER: owner, CLAIMED_AT: now, "start-time": now}


def _refused_row(error: ClientError) -> Row:
    """The row that a conditional write met (DynamoDB sends it along); re-raises any other refusal."""
    if error_code(error) != "ConditionalCheckFailedException":
        raise error
    return decode(cast("dict[str, Any]", error.response).get("Item", {}))


def _own_claim(submission: Submission, owner: str, key: str, row: Row) -> Claim | None:
    attempt = row.get(ATTEMPT)
    ours = row.get(CLAIM_KEY) == key and row.get(CLAIM_OWNER) == owner and END_TIME not in row
    if ours and isinstance(attempt, int):
        return Claim(submission.pk, submission.team_pk, key, owner, attempt, again=True)
    return None


def _claimed_by_another(submission: int, row: Row) -> AlreadyClaimed:
    if CLAIM_OWNER not in row:
        return AlreadyClaimed(f"The claim of submission {submission} is gone", "its row in the ledger was removed")
    if END_TIME in row:
        return AlreadyClaimed(f"Submission {submission} was evaluated already, until {row[END_TIME]}")
    since = row.get(CLAIMED_AT, "an unknown time")
    return AlreadyClaimed(f"Submission {submission} is evaluated by flow run {row[CLAIM_OWNER]} since {since}")

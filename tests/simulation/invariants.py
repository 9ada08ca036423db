"""What has to be true at every step of a simulated world, whatever fails in it, and what once all has settled."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext

from aws_api.dynamodb_values import decode
from embedded.evalai_standin.responses import Answer
from evalai_api.transport import Request
from evaluation.lifecycle.ledger_entry import claim_key
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.model import CLOSED, SubmissionStatus
from k8s_jobs.api import Json
from k8s_jobs.refusals import REFUSED_BY, was_refused
from tests.simulation.aws import Message
from tests.simulation.machine import Machine
from tests.simulation.pair import CRASHING

if TYPE_CHECKING:
    from tests.simulation.world import World

# Reasons of failures for which no fault of a simulated world is a cause.
NEVER = ("has disappeared", "results are incomplete", "UnexpectedAdmissionError", "once too often", "cannot be used")
REFUSED = "refused the shard's pods before they started"  # twelve times, which is a cause
PLAN_SECONDS = 90.0  # from what a run knows of its pods to the plan of the next Job, its requests' retries included
ORPHAN_SECONDS = 1800.0  # so long a Job may exist in quiet times without a claim


def current_run() -> str:
    """The flow run whose code runs at the moment, "" for none."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""


@dataclass
class _Claim:
    """Who holds a token, and when the row was last written under it, in true time."""

    run: str
    machine: Machine | None
    written_at: float


@dataclass
class Invariants:
    """`violations` in the order in which they were found: time, rule, what happened."""

    world: "World"
    violations: list[tuple[float, str, str]] = field(default_factory=list)
    quiet: bool = False
    overwritten: set[int] = field(default_factory=set)  # cancellations that a write met between its look and itself
    images: dict[int, str] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)  # an operator has cancelled a run of it in Prefect
    _claims: dict[str, _Claim] = field(default_factory=dict)  # by token
    _reads: dict[tuple[str, int], float] = field(default_factory=dict)  # (run, submission): EvalAI's last answer
    _cancelled: dict[int, float] = field(default_factory=dict)
    _ends: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    _sent_keys: dict[str, str] = field(default_factory=dict)
    _refused: dict[str, list[float]] = field(default_factory=dict)  # Job's name -> when nodes refused pods of it
    _planned: dict[str, float] = field(default_factory=dict)  # Job's name -> when the Job after it was written down
    _reported: set[tuple[str, int]] = field(default_factory=set)  # (run, submission)
    _orphans: dict[str, float] = field(default_factory=dict)
    _tried: dict[tuple[str, str], float] = field(default_factory=dict)  # (run, submission) -> the last try to write
    _takeovers: dict[str, str] = field(default_factory=dict)  # the takeover's key -> its run
    _said_dead: set[str] = field(default_factory=set)  # runs that another run, the reconciler's, has marked as crashed

    def __post_init__(self) -> None:
        from tests.simulation.world import DEAD_LETTERS, QUEUE, TABLE

        world = self.world
        self._table, self._queue, self._dead = TABLE, QUEUE, world.queues[DEAD_LETTERS]
        world.tables.watchers.append(self._row_written)
        world.tables.on_update = self._update_tried
        world.evalai.look = self._evalai_asked
        world.queues[QUEUE].on_send = self._message_sent
        world.queues[QUEUE].on_delete = self._message_deleted
        world.prefect.on_state = self._state_set
        world.kubernetes.on_change.append(self._object_changed)
        world.hub.after(60, self._every_minute)

    def broken(self, rule: str, text: str) -> None:
        self.violations.append((self.world.hub.now, rule, text))
        self.world.history.note(f"VIOLATION of {rule}: {text}")

    # The ledger.

    def row(self, submission: int) -> dict[str, object]:
        rows = self.world.tables.table(self._table)
        return next((decode(row) for key, row in rows.items() if key[1] == str(submission)), {})

    def _row_written(self, table: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        if after is None or "submission-id" not in after or "claim-owner" not in after:
            return
        hub, run = self.world.hub, current_run()
        old, new = (_text(before, "claim-token"), _text(after, "claim-token"))
        submission = _text(after, "submission-id")
        if new and new != old:
            self._claimed(submission, before, after, old, run)
            self._claims[new] = _Claim(run, hub.current, hub.now)
            return
        if new:
            claim = self._claims[new]
            if claim.run != run:
                self.broken(
                    "one holder writes", f"run {run} writes the row of {submission}, which run {claim.run} holds"
                )
            claim.written_at = hub.now
        elif not _text(before, "end-time"):
            self.broken("one holder writes", f"the row of {submission} is opened, and it had not ended")
        reason = _text(after, "reason")
        if any(words in reason for words in NEVER) and REFUSED not in reason and not _text(before, "reason"):
            self.broken("nothing fails without a cause", f"{submission}: {reason}")
        end = _text(after, "end-time")
        if end and not _text(before, "end-time"):
            self.world.history.note(f"ledger: {submission} {_text(after, 'status')}: {_text(after, 'reason')}")

    def _claimed(
        self, submission: str, before: Mapping[str, Any] | None, after: Mapping[str, Any], old: str, run: str
    ) -> None:
        epoch, attempt = _text(after, "claim-epoch"), _text(after, "attempt")
        self.world.history.note(f"ledger: {submission} is claimed by run {run}, attempt {attempt}, epoch {epoch}")
        if before is None or _text(before, "claim-key") != _text(after, "claim-key"):
            return
        if _text(before, "end-time"):
            self.broken("an end stands", f"{submission} had ended, and is claimed again")
        if not old:
            return
        claim = self._claims[old]
        silent = self._silent(claim)
        if claim.run != run and silent < 0.9 * self.world.lease_seconds and self._is_alive(claim):
            self.broken(
                "a live run keeps its claim", f"{submission}: taken {silent:.0f} s after the holder's last write"
            )

    def _silent(self, claim: _Claim) -> float:
        """For how long the holder has not written, outages of DynamoDB left out, in which it could not."""
        now = self.world.hub.now
        away = self.world.calls.outages.get("dynamodb", ())
        return (
            now - claim.written_at - sum(max(0.0, min(end, now) - max(begin, claim.written_at)) for begin, end in away)
        )

    def _update_tried(self, key: tuple[str, ...]) -> None:
        self._tried[current_run(), key[1]] = self.world.hub.now

    def _find_silent(self) -> None:
        """A live run that is awake tries to renew its claim, and succeeds however many calls fail, but in outages."""
        for row in self.world.tables.table(self._table).values():
            claim = self._claims.get(_text(row, "claim-token"))
            if claim is None or _text(row, "end-time") or not self._is_alive(claim):
                continue
            now, lease = self.world.hub.now, self.world.lease_seconds
            awake = now - (claim.machine.wakes_at if claim.machine else 0.0)
            idle = now - max(claim.written_at, self._tried.get((claim.run, _text(row, "submission-id")), 0.0))
            if min(idle, awake) > lease or min(self._silent(claim), awake) > 3 * lease:
                self.broken("a live run renews its claim", f"the row of {_text(row, 'submission-id')}")
                claim.written_at = float("inf")

    def _is_alive(self, claim: _Claim) -> bool:
        machine = claim.machine
        run = self.world.run(claim.run)
        if machine is None or machine.dead or machine.wakes_at > self.world.hub.now or run is None:
            return False
        shown = run.state_type is StateType.RUNNING or claim.run in self._said_dead
        return shown and claim.run in self.world.executing

    # The queue.

    def _message_sent(self, message: Message) -> None:
        pk = int(json.loads(message.body)["submission_pk"])
        self._sent_keys[message.id] = claim_key(self.world.evalai.state.submissions[pk].rerun_resumed_at)

    def _message_deleted(self, message: Message) -> None:
        pk = int(json.loads(message.body)["submission_pk"])
        row = self.row(pk)
        if any(each.body and json.loads(each.body)["submission_pk"] == pk for each in self._dead.messages.values()):
            return
        if "claim-key" not in row or str(row["claim-key"]) < self._sent_keys[message.id]:
            self.broken(
                "no message is deleted before its claim", f"message of {pk}, the row has {row.get('claim-key')}"
            )

    # EvalAI.

    def _evalai_asked(self, request: Request, answer: Answer, submission: int, before: SubmissionStatus | None) -> None:
        hub, run = self.world.hub, current_run()
        if answer.status == 429:
            self.broken("the request budget holds", "EvalAI's own limit was reached")
        if request.method == "GET":
            if submission:
                self._reads[run, submission] = hub.now
            return
        if answer.status >= 300 or before is None:
            return
        now = self.world.evalai.state.submissions[submission].status
        self.world.history.note(f"evalai: {submission} {before.value} -> {now.value} by run {run}")
        if before is SubmissionStatus.CANCELLED and now is not before:
            if self._reads.get((run, submission), float("-inf")) >= self._cancelled.get(submission, 0.0):
                self.broken("a cancelled one is never moved", f"{submission} becomes {now.value}")
            self.overwritten.add(submission)
        if before in CLOSED and now not in CLOSED and (run, submission) in self._reported:
            self.broken("a run does not undo its own end", f"{submission}: {before.value} -> {now.value}")
        if now in CLOSED and now is not SubmissionStatus.CANCELLED:
            self._reported.add((run, submission))
            attempt = int(str(self.row(submission).get("attempt") or 0))
            ends = self._ends.setdefault((submission, attempt), set())
            ends.add(now.value)
            if len(ends) > 1:
                self.broken("one outcome", f"{submission}, attempt {attempt}: {sorted(ends)}")

    def cancelled(self, submission: int) -> None:
        """A team has just cancelled it."""
        self._cancelled[submission] = self.world.hub.now

    # Prefect.

    def _state_set(self, run: FlowRun) -> None:
        state = run.state
        assert state is not None
        if state.type is StateType.CRASHED and current_run() not in ("", str(run.id)):
            self._said_dead.add(str(run.id))
        if given := run.parameters.get("takeover"):
            key = Takeover.model_validate(given).key
            if self._takeovers.setdefault(key, str(run.id)) != str(run.id):
                self.broken("a takeover has one run", f"{key}: {self._takeovers[key]} and {run.id}")
        self.world.history.note(f"prefect: {run.name} ({run.id}) {state.name} {(state.message or '')[:160]}")
        if "encountered an exception" in (state.message or "") and not _is_expected(run.name, state.message or ""):
            self.broken("no unforeseen error", f"{run.name}: {state.message}")

    # The cluster.

    def _object_changed(self, kind: str, event: str, item: Json) -> None:
        name = item["metadata"]["name"]
        if kind == "pods" and event == "MODIFIED" and was_refused(item) and not item.get("counted"):
            item["counted"] = True
            self._refused.setdefault(item["metadata"]["ownerReferences"][0]["name"], []).append(self.world.hub.now)
        if kind == "jobs" and item["metadata"].get("deletionTimestamp") and self.world.kubernetes.collecting:
            self._refused.pop(name, None)  # all Jobs of the attempt go
        if kind == "jobs" and event == "ADDED":
            self._job_created(name, item)

    def _job_created(self, name: str, item: Json) -> None:
        if item["spec"].get("suspend"):  # the plan of the Job that comes next
            self._planned[name.removesuffix("-next")] = self.world.hub.now
            return
        told = json.loads((item["metadata"].get("annotations") or {}).get(REFUSED_BY) or "{}")
        refused = self._refused.get(name, [])
        self.world.history.note(f"cluster: Job {name} is created: refused {len(refused)} times, by {told}")
        known = sum(at < self._planned.get(name, self.world.hub.now) - PLAN_SECONDS for at in refused)
        if sum(told.values()) < known:
            self.broken("refusals are not forgotten", f"{name} was refused {known} times, the new Job says {told}")
        self._refused[name] = refused[: sum(told.values())]  # one between the plan and the deletion is known to nobody

    def _every_minute(self) -> None:
        self._find_silent()
        if self.quiet:
            self._find_orphans()
        self.world.hub.after(60, self._every_minute)

    def _find_orphans(self) -> None:
        now = self.world.hub.now
        jobs = self.world.kubernetes.objects["jobs"]
        for name, job in jobs.items():
            labels = job["metadata"]["labels"]
            row = self.row(int(labels["leaderboard/submission"]))
            wanted = str(row.get("attempt")) == labels["leaderboard/attempt"] and not row.get("end-time")
            if wanted:
                self._orphans.pop(name, None)
            elif now - self._orphans.setdefault(name, now) > ORPHAN_SECONDS:
                self.broken("no Job without a claim", f"{name} for {ORPHAN_SECONDS / 60:.0f} min")
                self._orphans[name] = float("inf")
        for name in set(self._orphans) - set(jobs):
            del self._orphans[name]

    # Once all has settled.

    def unsettled(self) -> list[str]:
        """What is not yet as it has to be in the end."""
        world = self.world
        found = [problem for pk in world.evalai.state.submissions for problem in self._unsettled(pk)]
        found += [f"Job {name} is left" for name in world.kubernetes.objects["jobs"]]
        open_runs = [run for run in world.prefect.open_runs if world.prefect.of_run(run).flow.name != "reconcile"]
        found += [f"message {each.id} is on the queue" for each in world.queues[self._queue].messages.values()]
        return found + [f"run {run.name} ({run.id}) is {run.state_name}" for run in open_runs]

    def _unsettled(self, pk: int) -> Iterator[str]:
        shown, row = self.world.evalai.status(pk), self.row(pk)
        key = claim_key(self.world.evalai.state.submissions[pk].rerun_resumed_at)
        if not row:
            yield f"{pk} has no row, EvalAI says {shown.value}"
        elif not row.get("end-time"):
            yield f"the row of {pk} is open: {row.get('stage')}"
        elif str(row["claim-key"]) < key:
            yield f"{pk} was resumed, and nobody has claimed it"
        elif pk not in self.overwritten and shown.value != row["status"]:
            withdrawn = shown is SubmissionStatus.CANCELLED  # after its end, which the row keeps
            if not withdrawn:
                yield f"{pk}: EvalAI says {shown.value}, the row {row['status']}"

    def check_end(self) -> None:
        """What the outcomes have to be."""
        for problem in self.unsettled():
            self.broken("everything has its end in time", problem)
        for machine in self.world.machines.values():
            for problem in machine.problems:
                self.broken("no unforeseen error", f"{machine.name}: {problem}")
        for pk in self.world.evalai.state.submissions:
            self._check_outcome(pk, self.row(pk))

    def _check_outcome(self, pk: int, row: Mapping[str, object]) -> None:
        image = self.images.get(pk, "")
        if row.get("status") == "failed" and row.get("fault") == "team" and image != CRASHING:
            self.broken("budgets are charged for what happened", f"{pk}: {row.get('reason')}")
        if row.get("status") == "held":
            self.broken("no true result is held", f"{pk}: {row.get('reason')}")
        if row.get("status") == "finished":
            self._check_result(pk)

    def _check_result(self, pk: int) -> None:
        from tests.simulation.world import BUCKET, ROUTES

        merged = json.loads(self.world.objects.get((BUCKET, f"{pk}/merged.json"), b"{}"))
        records = merged.get("_checkpoint", {}).get("records", [])
        routes = sorted(record["route_id"] for record in records)
        if routes != sorted(f"RouteScenario_{route}_rep0" for route in range(ROUTES)):
            self.broken("each route is recorded once", f"{pk}: {routes}")


def _is_expected(run: str, message: str) -> bool:
    """A pass of the reconciler without Prefect or a ledger fails, and the next one comes."""
    return "submission" not in run and ": ServiceUnavailable: " in message


def _text(row: Mapping[str, Any] | None, name: str) -> str:
    value = (row or {}).get(name)
    return str(next(iter(value.values()))) if value else ""

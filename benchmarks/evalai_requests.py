"""How many requests to EvalAI a submission costs for each minute that it is in flight.

    python benchmarks/evalai_requests.py [MINUTES]

Simulates 10, 50 and 200 submissions that come at once and drive for an hour, in two processes, with the flow's own
code, a virtual clock, and an EvalAI in memory that counts requests as the client makes them. One submission is
cancelled in between. Beside it stands the same where each run asks for itself.
"""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from benchmarks.virtual_time import run_in_virtual_time
from evaluation.errors import SubmissionCancelled
from evaluation.lifecycle.report import Report
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import SubmissionStatus, parse_phase
from flows.cancellation import wait_for_cancellation
from flows.evalai_list import SharedList
from flows.evaluation_context import EvaluationContext
from tests.fakes import FakeDocument, FakeEvalAI

PHASE = parse_phase("leaderboard-20-SENSORS")
CHECK_SECONDS = 30.0  # the default of `cancel_check_seconds`
CANCEL_AFTER = 0.405  # of the time in flight


@dataclass
class Result:
    """Seconds until the run of the cancelled submission knew of it, and the requests by what they were for."""

    submissions: int
    minutes: float
    sent: "Counter[str]" = field(default_factory=Counter)
    noticed_after: float = float("inf")

    @property
    def per_submission_minute(self) -> float:
        return sum(self.sent.values()) / self.submissions / self.minutes


def simulate(submissions: int, minutes: float, processes: int = 2, shared: bool = True) -> Result:
    """All submissions come at once and end after `minutes`."""
    result, evalai = Result(submissions, minutes), FakeEvalAI()
    run_in_virtual_time(_simulate(evalai, result, processes, shared))
    result.sent.update(evalai.requests)
    return result


async def _simulate(evalai: FakeEvalAI, result: Result, processes: int, shared: bool) -> None:
    document = FakeDocument()
    lists = [SharedList(document, evalai, 1) if shared else None for _ in range(processes)]
    evalai.statuses |= dict.fromkeys(range(1, result.submissions + 1), SubmissionStatus.SUBMITTED)
    runs = [_run(evalai, pk, lists[pk % processes], result) for pk in evalai.statuses]
    await asyncio.gather(*runs, _cancel(evalai, result))


async def _cancel(evalai: FakeEvalAI, result: Result) -> None:
    await asyncio.sleep(result.minutes * 60 * CANCEL_AFTER)
    evalai.statuses[1] = SubmissionStatus.CANCELLED


async def _run(evalai: FakeEvalAI, pk: int, listed: SharedList | None, result: Result) -> None:
    """A submission's requests, as flows/evaluate_submission.py makes them."""
    message = SubmissionMessage(challenge_pk=1, phase_pk=1, submission_pk=pk)
    row = await listed.now(pk) if listed else None
    submission = await asyncio.to_thread(evalai.submission, message, PHASE, row)
    await asyncio.to_thread(evalai.mark_running, submission, "job")
    context = SimpleNamespace(
        services=SimpleNamespace(listed=listed),
        settings=SimpleNamespace(cancel_check_seconds=CHECK_SECONDS),
        submission=submission,
        evalai=evalai,
    )
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(result.minutes * 60):
            await wait_for_cancellation(cast(EvaluationContext, context))
    except SubmissionCancelled:
        result.noticed_after = clock() - result.minutes * 60 * CANCEL_AFTER
    except TimeoutError:
        await asyncio.to_thread(evalai.report, Report(submission, SubmissionStatus.FINISHED))


def main(minutes: float) -> None:
    print(f"{'in flight':>9} {'':<16}{'lists':>7}{'looks':>7}{'running':>8}{'reports':>8}{'all':>7}", end="")
    print(f"{'a submission-minute':>21}{'a minute':>10}{'cancellation noticed after':>28}")
    for submissions in (10, 50, 200):
        for shared in (False, True):
            result = simulate(submissions, minutes, shared=shared)
            counts = "".join(f"{result.sent[name]:>8}" for name in ("look", "running", "report"))
            name, rate = "one list" if shared else "each for itself", result.per_submission_minute
            print(f"{submissions:>9} {name:<16}{result.sent['list']:>6}{counts}{result.sent.total():>7}", end="")
            print(f"{rate:>21.3f}{rate * submissions:>10.1f}{result.noticed_after:>26.0f} s")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)

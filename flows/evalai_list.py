"""EvalAI's list, asked for by one process and read by every run of the installation.

It says at once, for all submissions, who waits, runs, or was withdrawn, where each run asked for itself before. What
the list does not hold (it has ended, it was submitted long ago, EvalAI's row is gone) a run asks EvalAI itself.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

from blocks.evalai import EvalAI
from blocks.ledger_table import LedgerTable
from evalai_api.fields import SubmissionRow
from evalai_api.shared_list import LOOK_SECONDS, ListWatch, interval, read_list_body, render_list
from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable
from evaluation.ports import EvaluationServer, ListedSubmission, SharedDocument
from flows.threads import in_evalai_thread
from prefect_api.blocks import load_block

LISTED = timedelta(days=7)  # the list has what was submitted in this time
READ_SECONDS = 5.0  # between two readings of the shared row by one run; those of a process share one for half of it
POLL_SECONDS = 0.2  # while a new submission waits for the list
NEWS_SECONDS = 90.0  # so long a new submission waits for the list before its run asks for itself
_log = logging.getLogger(__name__)

Rows = Mapping[int, SubmissionRow]


@dataclass
class SharedList:
    """One for all runs of a process. All coroutines, in one event loop."""

    document: SharedDocument
    evalai: EvaluationServer
    challenge: int
    _watch: ListWatch = field(default_factory=ListWatch)
    _rows: Rows = field(default_factory=dict)
    _read_at: float = float("-inf")
    _refreshing: "asyncio.Task[None] | None" = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self, submission: int) -> ListedSubmission | None:
        """The submission in a list that EvalAI is asked for after this call; None where it is not in there.

        Raises what asking EvalAI or DynamoDB raises, ServiceUnavailable where no run got a list in time.
        """
        await self._read(0)  # what was begun before this call is of no use
        wanted, deadline = self._watch.begun, _clock() + NEWS_SECONDS
        while self._watch.done <= wanted:
            if self._watch.is_due(_clock(), NEWS_SECONDS, wanted):
                await self._refresh()
            elif _clock() > deadline:
                raise ServiceUnavailable("EvalAI's list does not come", f"none in {NEWS_SECONDS:g} s")
            else:
                await asyncio.sleep(POLL_SECONDS)
            await self._read(POLL_SECONDS)
        return self._rows.get(submission)

    async def lately(self, submission: int, longest: float) -> ListedSubmission | None:
        """The submission in the list as it is; None also where the list is too old to say anything. Never waits.

        `longest` is the number of seconds between two lists where hardly anything is under way. Starts asking for a
        new list where one is due. Raises what reading DynamoDB raises.
        """
        await self._read(min(READ_SECONDS, longest) / 2)
        due = self._watch.is_due(_clock(), interval(self._rows, longest))
        if due and not (self._refreshing and not self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh_or_log())
        fresh = self._watch.age(_clock()) < longest + 2 * LOOK_SECONDS
        return self._rows.get(submission) if fresh else None

    async def _read(self, pause: float) -> None:
        """Read the shared row, unless a reading began at most `pause` seconds before this call."""
        asked = _clock()
        async with self._reading:
            if self._read_at >= asked - pause:
                return
            began = _clock()
            made = await asyncio.to_thread(self.document.read)
            if made.done != self._watch.done:
                self._rows = read_list_body(made.body)
            self._read_at = began
            self._watch.observe(made.begun, made.done, _clock())

    async def _refresh_or_log(self) -> None:
        try:
            await self._refresh()
        except EvaluationError as error:
            _log.warning("EvalAI's list is not renewed now: %s", error)

    async def _refresh(self) -> None:
        """Ask EvalAI and publish what it says; only waits a moment where another run or process asks already."""
        if not self._asking.locked():
            async with self._asking:
                number = await asyncio.to_thread(self.document.begin, self._watch.begun)
                if number is not None:
                    await in_evalai_thread(_ask, self.document, self.evalai, self.challenge, number)
                    await self._read(0)
                    return
        await asyncio.sleep(POLL_SECONDS)


def _ask(document: SharedDocument, evalai: EvaluationServer, challenge: int, begun: int) -> None:
    number = begun

    def is_ours() -> bool:
        """A run that asked while this one waited for a slot needs a higher number, since the list will be newer."""
        nonlocal number
        again = document.begin(number)
        number = again or number
        return again is not None

    rows = evalai.list_once(challenge, datetime.now(UTC) - LISTED, is_ours)
    if rows is not None:
        document.publish(number, render_list(rows))


def _clock() -> float:
    return asyncio.get_running_loop().time()


_lists: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, SharedList]]" = WeakKeyDictionary()


async def load_list(evalai: EvalAI) -> SharedList | None:
    """The list of this process and event loop; None where the installation cannot have one.

    That is where the block does not name the challenge, or the first cluster's ledger table, which keeps the shared
    row, cannot be loaded: then each run asks EvalAI for itself.
    """
    try:
        cluster = evalai.clusters[0] if evalai.challenge_pk is not None and evalai.clusters else None
        if cluster is None or evalai.challenge_pk is None:
            return None
        table = await load_block(LedgerTable, cluster)
    except InvalidConfiguration as error:
        _log.warning("EvalAI's list is not shared, each run asks for itself: %s", error)
        return None
    key = (evalai.api_server, evalai.auth_token, evalai.challenge_pk, table.table)
    lists = _lists.setdefault(asyncio.get_running_loop(), {})
    if key not in lists:
        document = table.shared_document(f"evalai-list-{evalai.challenge_pk}")
        lists[key] = SharedList(document, evalai.client(), evalai.challenge_pk)
    return lists[key]

"""Does the simulation find what is wrong? Twenty faults put into the product's code, each alone, until a seed finds it.

`python -m tests.simulation.mutants [NAME ...]` prints how many seeds each needed, and which rule was broken. A mutant
is a change of one function's source, compiled into its code object, so that whoever has imported it runs the change.
"""

import importlib
import inspect
import multiprocessing
import os
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tests.simulation.run import simulate

MOST_SEEDS = 60


@dataclass(frozen=True)
class Mutant:
    """`function` is `module:qualified.name`; `old` in its source becomes `new`."""

    name: str
    function: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "the fence is left out",
        "blocks.ledger_table:LedgerTable._write_held",
        'token = f"{expression.name(CLAIM_TOKEN)} = {expression.value(CLAIM_TOKEN, claim.token)}"',
        'token = f"attribute_exists({expression.name(CLAIM_OWNER)})"',
    ),
    Mutant(
        "a claim that is held is taken by the next message",
        "blocks.ledger_table:LedgerTable._new_claim",
        "OR {held} < {expression",
        "OR {held} <= {expression",
    ),
    Mutant(
        "an ended evaluation is claimed again",
        "blocks.ledger_table:LedgerTable._claim_again",
        'f"attribute_not_exists({expression.name(END_TIME)})"',
        'f"attribute_exists({expression.name(CLAIM_OWNER)})"',
    ),
    Mutant(
        "an epoch that is earlier takes the claim",
        "blocks.ledger_table:_earlier_or_equal",
        "{held} <= {expression",
        "{held} > {expression",
    ),
    Mutant(
        "the lease is compared with the reconciler's clock",
        "flows.reconciler.snapshot:_lease",
        "else Lease.UNCLEAR",
        "else Lease.EXPIRED",
    ),
    Mutant(
        "an outage counts as silence of the holder",
        "evaluation.lifecycle.lease_watch:LeaseWatch.failed",
        "self._silent = dict.fromkeys(self._silent, 0.0)",
        "self._silent = {pk: seconds + self.pause for pk, seconds in self._silent.items()}",
    ),
    Mutant(
        "the lease is hardly ever renewed",
        "flows.lease:_Renewals.__init__",
        "ledger.lease_seconds / RENEWALS",
        "ledger.lease_seconds * 20",
    ),
    Mutant(
        "the message is acknowledged before the claim",
        "flows.evaluate_submission:evaluate_submission",
        "await extend_visibility(services, delivery)",
        "await acknowledge(services, delivery)",
    ),
    Mutant(
        "the bridge deletes what it has published",
        "services.bridge:_Bridge._settled",
        "self._prefect.worked()",
        "self._prefect.worked(); self._queue.acknowledge(received.delivery)",
    ),
    Mutant(
        "a duplicate's message is left on the queue",
        "flows.intake:end_unclaimed",
        "await acknowledge(services, delivery)",
        "pass",
    ),
    Mutant(
        "a cancellation is overwritten by the report",
        "evalai_api.client:EvalAIClient._write",
        "if report.status is not SubmissionStatus.CANCELLED:",
        "if False:",
    ),
    Mutant(
        "a cancellation is overwritten by `running`",
        "evalai_api.client:EvalAIClient._mark_running",
        "_refuse_withdrawn(row)",
        "pass",
    ),
    Mutant(
        "a late `running` follows the end",
        "evaluation.lifecycle.write_permit:WritePermit.revoke",
        "self._revoked = True",
        "pass",
    ),
    Mutant(
        "the budget of requests is not asked",
        "evalai_api.http:EvalAIHttp.once",
        "if requests:",
        "if False:",
    ),
    Mutant(
        "a retry is not idempotent: each takeover run is another",
        "flows.takeover_runs:start_takeover_run",
        "idempotency_key=takeover.key",
        'idempotency_key=f"{takeover.key} {id(takeover)}"',
    ),
    Mutant(
        "the ledger's scan reads one page",
        "blocks.ledger_table:LedgerTable.entries",
        "for page in pages:",
        "for page in [next(iter(pages))]:",
    ),
    Mutant(
        "the cluster's list reads one page",
        "k8s_jobs.reflector:Reflector._list",
        'if not metadata.get("continue"):',
        "if True:",
    ),
    Mutant(
        "a takeover run has the epoch of one that has died",
        "flows.reconciler.decisions:_take_over",
        "epoch = max([entry.epoch, *(run.takeover.epoch for run in own)]) + 1",
        "epoch = entry.epoch + 1",
    ),
    Mutant(
        "a shard ends before its last checkpoint is in S3",
        "shard_pod.supervisor:PairSupervisor._finish",
        "self._copy_until_done(everything=True)",
        "pass",
    ),
    Mutant(
        "refused pods use up the shard's budget",
        "k8s_jobs.refusals:counted_failures",
        "- sum(map(was_refused, pods))",
        "",
    ),
    Mutant(
        "what takes a refused Job's place is not written down",
        "k8s_jobs.planned_jobs:plan_job",
        "await api.create(jobs_path(namespace), plan)",
        "pass",
    ),
    Mutant(
        "an outage after the claim fails the submission",
        "flows.evaluate_submission:simulate",
        "except SubmissionFailed as failure:",
        "except (SubmissionFailed, TransientError) as failure:",
    ),
)
MUTANTS_BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def apply(mutant: Mutant) -> None:
    """Change the function in this process, for good."""
    module_name, _, path = mutant.function.partition(":")
    module = importlib.import_module(module_name)
    owner: Any = module
    for name in path.split("."):
        owner = inspect.getattr_static(owner, name)
    function = _innermost(owner)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.old!r} is not once in {mutant.function}")
    lines = source.replace(mutant.old, mutant.new).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(("def ", "async def ")))
    names: dict[str, Any] = {}
    exec(compile("\n".join(lines[begin:]), mutant.function, "exec"), vars(module), names)  # noqa: S102
    function.__code__ = names[function.__name__].__code__


def _innermost(owner: Any) -> FunctionType:
    """The function in a task, a flow, or a decorator's wrapping."""
    while not isinstance(owner, FunctionType) or hasattr(owner, "__wrapped__"):
        owner = getattr(owner, "fn", None) or owner.__wrapped__
    return owner


def hunt(mutant: Mutant) -> tuple[str, int, str, float]:
    """The mutant's name, the number of seeds until one failed (0: none did), the rule, CPU seconds."""
    apply(mutant)
    began = time.process_time()
    for count, seed in enumerate(range(1, MOST_SEEDS + 1), 1):
        result = simulate(seed, stop_at_once=True)
        if result.violations:
            return mutant.name, count, result.rules[0], time.process_time() - began
    return mutant.name, 0, "", time.process_time() - began


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        arguments = [sys.executable, "-m", "tests.simulation.mutants", *sys.argv[1:]]
        os.execve(sys.executable, arguments, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606
    wanted = [mutant for mutant in MUTANTS if not sys.argv[1:] or mutant.name in sys.argv[1:]]
    missed = 0
    with _forking(os.cpu_count() or 1) as pool:
        for name, seeds, rule, seconds in pool.imap_unordered(hunt, wanted, 1):
            missed += not seeds
            found = f"{seeds} seeds: {rule}" if seeds else f"not found in {MOST_SEEDS} seeds"
            print(f"{name}: {found} ({seconds:.0f} s)", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} mutants are found")
    return 1 if missed else 0


def _forking(jobs: int) -> Any:
    """A process for each mutant, with everything imported."""
    context: Any = multiprocessing.get_context("fork")
    make: Callable[..., Any] = context.Pool
    return make(jobs, maxtasksperchild=1)


if __name__ == "__main__":
    sys.exit(main())

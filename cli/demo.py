"""The main job, end to end, on this machine: `leaderboard demo`; and the pieces that `submit --wait` shares with it."""

import time
from collections.abc import Iterable, Iterator
from typing import IO

from rich.console import Console

from cli.progress_view import values_table, watch
from cli.report_file import write_page
from cli.submission_progress import Observer, Progress, in_time
from deployments.settings import Settings
from deployments.stack_state import StackState
from embedded.evalai_website import EvalAIWebsite
from embedded.stack import Stack, running_stack
from evaluation import storage_keys
from evaluation.submission.model import SubmissionStatus, parse_phase

PHASE = "leaderboard-20-SENSORS"
IMAGE = "demo/agent:steady"
REPORTS = {"Report": storage_keys.REPORT, "Report for the team": storage_keys.TEAM_REPORT}


def run_demo(settings: Settings, console: Console) -> int:
    """Start the stack, evaluate one submission in the open, stop the stack. Returns the exit code."""
    began = time.monotonic()
    console.print("[bold]Starting the embedded stack[/] (nothing leaves this machine)")
    with running_stack(settings, lambda line: console.print(line, markup=False, highlight=False)) as stack:
        people = EvalAIWebsite(stack.state)
        pk = people.submit(stack.state.phase_pk(PHASE), IMAGE)
        console.print(f"\n[bold]Submission {pk}[/]: {IMAGE} for {PHASE}", highlight=False)
        observer = Observer(stack.state, people)
        logs = f"See the logs in {stack.state.folder / 'logs'}, worker.log first."
        snapshots = in_time(observer.follow(pk), settings.demo_seconds, "a part of the stack may be broken", logs)
        seen = watch(console, _while_well(stack, snapshots))
        metrics = observer.result(pk, PHASE)
        show_outcome(console, stack.state, seen, metrics)
        reports = save_reports(stack.state, observer, seen)
    for name, file in reports.items():
        console.print(f"{name}, which stays: {file}", markup=False, highlight=False, soft_wrap=True)
    return finish(console.file, seen, metrics, time.monotonic() - began)


def save_reports(state: StackState, observer: Observer, seen: Progress) -> dict[str, str]:
    """Copy the report's pages out of S3, which ends with the stack, into its folder: what each is -> its file."""
    saved = {}
    for what, name in REPORTS.items():
        page = observer.file(seen, name)
        if page is not None:
            saved[what] = str(write_page(state.folder / "reports" / f"submission-{seen.submission}-{name}", page))
    return saved


def _while_well(stack: Stack, snapshots: Iterable[Progress]) -> Iterator[Progress]:
    """The snapshots; raises ServiceUnavailable when a part of the stack has ended for good."""
    for seen in snapshots:
        stack.supervisor.tend()
        yield seen


def show_outcome(console: Console, state: StackState, seen: Progress, metrics: dict[str, float]) -> None:
    """The leaderboard row or the reason, and where to look."""
    console.print()
    if seen.evalai is SubmissionStatus.FINISHED:
        console.print(values_table(f"Leaderboard row, {seen.phase}", metrics))
        if remarks := seen.row.get("remarks"):
            console.print(remarks, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(seen.row.get("reason", "It never started."), markup=False, highlight=False, soft_wrap=True)
    cluster = parse_phase(seen.phase).cluster
    run = seen.row.get("claim-owner", "")
    places = {
        "Prefect": f"{state.prefect_url}/runs/flow-run/{run}" if run else state.prefect_url,
        "S3 folder": f"s3://{cluster}/{seen.submission}/",
        "DynamoDB row": f"table {cluster}, team-id {seen.team}, submission-id {seen.submission}",
        "AWS": f"{state.aws_url}/moto-api/",
        "EvalAI": f"{state.evalai_url}/api/jobs/submission/{seen.submission}",
        "Logs": str(state.folder / "logs"),
    }
    team_reads = seen.stdout_file if seen.evalai is SubmissionStatus.FINISHED else seen.stderr_file
    if team_reads:
        places["What the team reads"] = team_reads
    if "end-time" in seen.row:
        places["Report"] = f"{state.aws_url}/{cluster}/{storage_keys.result_key(seen.submission, storage_keys.REPORT)}"
    console.print(values_table("Where to look while the stack runs (`make up` keeps it up)", places))


def finish(file: IO[str], seen: Progress, metrics: dict[str, float], seconds: float) -> int:
    """Print the last line, in the form that scripts read; returns the exit code: 0 only for a full, finished result."""
    score = metrics.get("Driving score")
    words = [
        seen.evalai.value.upper(),
        f"submission={seen.submission}",
        f"phase={seen.phase}",
        f"routes={seen.routes_done}/{seen.routes_total}",
        f"shards={len(seen.shards)}",
        f"driving_score={'none' if score is None else f'{score:.3f}'}",
        f"evalai={seen.evalai.value}",
        f"seconds={seconds:.0f}",
    ]
    print(*words, file=file, flush=True)
    complete = score is not None and 0 < seen.routes_total == seen.routes_done
    return 0 if seen.evalai is SubmissionStatus.FINISHED and complete else 1

"""The main job, end to end, on this machine: `leaderboard demo`."""

import time
from collections.abc import Iterable, Iterator

from rich.console import Console

from cli.observers import load_challenge, observer_of
from cli.progress_view import watch_live
from cli.report_file import write_page
from cli.submission_outcome import finish, show_outcome
from cli.submission_progress import Observer, Progress, in_time
from deployments.installation import installation
from deployments.settings import Settings
from deployments.stack_state import StackState
from embedded.evalai_website import EvalAIWebsite
from embedded.stack import Stack, running_stack
from evaluation import storage_keys

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
        with installation(settings) as target:
            observer = observer_of(load_challenge(), target)
        logs = f"See the logs in {stack.state.folder / 'logs'}, worker.log first."
        snapshots = in_time(observer.follow(pk), settings.demo_seconds, "a part of the stack may be broken", logs)
        seen = watch_live(console, _while_well(stack, snapshots))
        metrics = observer.result(pk, PHASE)
        show_outcome(console, seen, metrics, {})
        reports = save_reports(stack.state, observer, seen)
    for name, file in reports.items():
        console.print(f"{name}, which stays: {file}", markup=False, highlight=False, soft_wrap=True)
    console.print("The stack is stopped. `make up` starts one that stays, with Prefect's pages.", highlight=False)
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

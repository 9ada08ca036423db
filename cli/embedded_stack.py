"""The commands that start the embedded stack, or talk to a running one."""

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from cli.arguments import SubmissionId
from cli.demo import finish, run_demo, show_outcome
from cli.progress_view import shards_table, submissions_table, values_table, watch
from cli.submission_progress import Observer, in_time
from deployments.settings import load_settings
from deployments.stack_state import EMBEDDED_CREDENTIALS, LOOPBACK, StackState, read_state
from embedded.evalai_website import EvalAIWebsite
from embedded.external_evalai import ExternalEvalAI, find_evalai, read_access
from embedded.stack import running_stack
from evaluation.errors import DeadlineExceeded, InvalidConfiguration

CHECK_SECONDS = 1.0
INTERRUPTED = 130  # what a shell shows for Ctrl-C
TIME_IS_UP = 124  # what timeout(1) ends with
WAIT_SECONDS = 24 * 3600.0

WaitSeconds = Annotated[float, Parameter(validator=Number(gt=0))]


def demo() -> int:
    """The main job on this machine: one submission, from the queue to its leaderboard row.

    Starts the embedded stack, sends one submission for leaderboard-20-SENSORS, shows its progress and result, and
    stops everything. The last line is FINISHED ... and the exit code 0 if all of it worked.
    """
    with interrupted_by_signals():
        return run_demo(load_settings(), _screen())


def up(*, evalai: str | None = None, evalai_access: Path | None = None) -> None:
    """Start the embedded stack and keep it until Ctrl-C (or SIGTERM), which stops all of it.

    Parameters
    ----------
    evalai
        Address of a real EvalAI, which is used in the place of the embedded one: see docs/evalai.md.
    evalai_access
        JSON file with the challenge's id and the tokens of a host and of a member of each team; with --evalai.
    """
    screen = _screen()
    with interrupted_by_signals(), contextlib.suppress(KeyboardInterrupt):
        external = _external_evalai(evalai, evalai_access)
        screen.print(
            "[bold]Starting the embedded stack[/] "
            + (f"beside EvalAI at {external.url}" if external else "(nothing leaves this machine)")
        )
        with running_stack(load_settings(), lambda line: screen.print(line, markup=False), external) as stack:
            screen.print(values_table("The stack is up", _places(stack.state)))
            screen.print("Send a submission from another terminal, for example:")
            screen.print(
                f"  {_program()} submit --phase leaderboard-10-MAP --image demo/agent:steady --wait", soft_wrap=True
            )
            screen.print("Ctrl-C stops everything.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    stack.supervisor.tend()
                    time.sleep(CHECK_SECONDS)
            screen.print("\nStopping ...")
    screen.print("Stopped.")


def submit(
    *,
    phase: str,
    image: str,
    team: str | None = None,
    wait: bool = False,
    wait_seconds: WaitSeconds = WAIT_SECONDS,
) -> int:
    """Send a submission to the running stack, as a team does at EvalAI; prints its id.

    Parameters
    ----------
    phase
        The phase's codename, e.g. leaderboard-10-MAP.
    image
        The agent's image, e.g. demo/agent:steady; the README lists the demo images.
    team
        The team that submits; the first demo team if not given.
    wait
        Show the progress until the end. Exit code 0: finished; 1: failed or cancelled; 124: --wait-seconds are over
        or 130: Ctrl-C (with both, it goes on).
    wait_seconds
        How long --wait waits at most.
    """
    state = read_state(load_settings())
    people = EvalAIWebsite(state)
    pk = people.submit(state.phase_pk(phase), image, team)
    if not wait:
        print(pk)
        return 0
    _screen().print(f"Submission {pk}: {image} for {phase}", markup=False)
    return _wait(state, people, pk, wait_seconds)


def resume(submission: SubmissionId, /, *, wait: bool = False, wait_seconds: WaitSeconds = WAIT_SECONDS) -> int:
    """Resume a failed submission from its checkpoints, as a challenge host does at EvalAI.

    Parameters
    ----------
    submission
        The submission's id.
    wait
        Show the progress until the end, as `submit --wait` does.
    wait_seconds
        How long --wait waits at most.
    """
    state = read_state(load_settings())
    people = EvalAIWebsite(state)
    people.resume(submission)
    return _wait(state, people, submission, wait_seconds) if wait else 0


def env() -> None:
    """Print the variables with which any program reaches the running stack: eval "$(leaderboard env)" sets them.

    boto3, and so compute_client, then talks to the stack's AWS; prefect and leaderboard to its Prefect server, from
    any folder.
    """
    state = read_state(load_settings())
    for name, value in shell_variables(state).items():
        print(f"export {name}={shlex.quote(value)}")


def shell_variables(state: StackState) -> dict[str, str]:
    return {
        **EMBEDDED_CREDENTIALS,
        "AWS_ENDPOINT_URL": state.aws_url,
        "AWS_DEFAULT_REGION": state.region,
        "PREFECT_API_URL": state.prefect_api_url,
        "LEADERBOARD_STATE_DIR": str(state.folder),
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }


def cancel(submission: SubmissionId, /) -> None:
    """Cancel a submission, as its team does at EvalAI. The flow run sees that and stops the shards.

    Parameters
    ----------
    submission
        The submission's id.
    """
    EvalAIWebsite(read_state(load_settings())).cancel(submission)
    print(f"EvalAI has submission {submission} as cancelled; its shards stop within some seconds.")


def status(submission: SubmissionId | None = None, /) -> None:
    """Show all submissions of the running stack, or one: EvalAI's status, the ledger's row, the shards.

    Parameters
    ----------
    submission
        The submission's id.
    """
    state = read_state(load_settings())
    screen = _screen()
    people = EvalAIWebsite(state)
    if submission is None:
        codenames = {pk: codename for codename, pk in state.phases.items()}
        screen.print(submissions_table(people.submissions(), codenames))
        return
    seen = Observer(state, people).snapshot(submission)
    screen.print(shards_table(seen))
    screen.print(values_table("The ledger's row", dict(sorted(seen.row.items()))))


def _external_evalai(url: str | None, access: Path | None) -> ExternalEvalAI | None:
    if url is None and access is None:
        return None
    if url is None or access is None:
        raise InvalidConfiguration(
            "A real EvalAI needs two options", "only one is given", "Give --evalai and --evalai-access."
        )
    return find_evalai(url, read_access(access))


def _program() -> str:
    """How this program was called, to be repeated in a hint."""
    return sys.argv[0] if Path(sys.argv[0]).name == "leaderboard" else "leaderboard"


def _screen() -> Console:
    return Console(highlight=False)


def _wait(state: StackState, people: EvalAIWebsite, submission: int, seconds: float) -> int:
    began = time.monotonic()
    screen = _screen()
    observer = Observer(state, people)
    goes_on = f"It goes on without being watched: {_program()} status {submission}"
    try:
        snapshots = in_time(observer.follow(submission), seconds, "--wait-seconds allow no more", goes_on)
        seen = watch(screen, snapshots)
    except DeadlineExceeded as error:
        print(error, file=sys.stderr)
        return TIME_IS_UP
    except KeyboardInterrupt:
        screen.print(f"\nSubmission {submission} goes on without being watched: {_program()} status {submission}")
        return INTERRUPTED
    metrics = observer.result(submission, seen.phase)
    show_outcome(screen, state, seen, metrics)
    return finish(screen.file, seen, metrics, time.monotonic() - began)


def _places(state: StackState) -> dict[str, object]:
    return {
        "Prefect": state.prefect_url,
        "AWS (moto)": f"{state.aws_url}/moto-api/",
        "EvalAI": state.evalai_url,
        "EvalAI's queue": state.queue_url,
        "phases": ", ".join(state.phases),
        "teams": ", ".join(state.participant_tokens),
        "logs": state.folder / "logs",
    }


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

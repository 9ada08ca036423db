"""The commands that start the embedded stack, or talk to a running one."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from cli.arguments import WAIT_SECONDS, Flag, WaitSeconds
from cli.demo import run_demo
from cli.exit_codes import ExitCode
from cli.listing import show_values
from cli.observers import load_challenge, observer_of
from cli.submissions import follow_to_end, screen
from deployments.installation import installation
from deployments.settings import load_settings
from deployments.stack_state import StackState, read_state
from embedded.evalai_website import EvalAIWebsite
from embedded.external_evalai import ExternalEvalAI, find_evalai, read_access
from embedded.stack import running_stack
from evaluation.errors import InvalidConfiguration

CHECK_SECONDS = 1.0
ERASES = (
    "Ctrl-C stops everything. Submissions, results and Prefect's history are gone then, and the logs at the next "
    "start; to keep a report, run `leaderboard report ID` before."
)


def demo() -> int:
    """The main job on this machine: one submission, from the queue to its leaderboard row.

    Starts the embedded stack, sends one submission for leaderboard-20-SENSORS, shows its progress and result, and
    stops everything. The last line is FINISHED ... and the exit code 0 if all of it worked.
    """
    with interrupted_by_signals():
        return run_demo(load_settings(), screen())


def up(*, evalai: str | None = None, evalai_access: Path | None = None) -> None:
    """Start the embedded stack and keep it until Ctrl-C (or SIGTERM), which stops all of it.

    Parameters
    ----------
    evalai
        Address of a real EvalAI, which is used in the place of the embedded one: see docs/evalai.md.
    evalai_access
        JSON file with the challenge's id and the tokens of a host and of a member of each team; with --evalai.
    """
    console = screen()
    with interrupted_by_signals(), contextlib.suppress(KeyboardInterrupt):
        external = _external_evalai(evalai, evalai_access)
        console.print(
            "[bold]Starting the embedded stack[/] "
            + (f"beside EvalAI at {external.url}" if external else "(nothing leaves this machine)")
        )
        with running_stack(load_settings(), lambda line: console.print(line, markup=False), external) as stack:
            show_values(console, "The stack is up", _places(stack.state))
            console.print("Send a submission from another terminal, for example:")
            example = f"  {_program()} submit --phase leaderboard-10-MAP --image demo/agent:steady --wait"
            console.print(example, soft_wrap=True)
            console.print(ERASES)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    stack.supervisor.tend()
                    time.sleep(CHECK_SECONDS)
            console.print("\nStopping ...")
    console.print("Stopped.")


def submit(
    *,
    phase: str,
    image: str,
    team: str | None = None,
    wait: Flag = False,
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
        Follow it to its end, as `watch` does, with its exit codes.
    wait_seconds
        How long --wait waits at most.
    """
    settings = load_settings()
    state = read_state(settings)
    pk = EvalAIWebsite(state).submit(state.phase_pk(phase), image, team)
    if not wait:
        print(pk)
        return ExitCode.OK
    screen().print(f"Submission {pk}: {image} for {phase}", markup=False)
    with installation(settings) as target:
        return follow_to_end(target, observer_of(load_challenge(), target), pk, wait_seconds)


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


def _places(state: StackState) -> list[tuple[str, str]]:
    places = {
        "Prefect": state.prefect_url,
        "AWS (moto)": f"{state.aws_url}/moto-api/",
        "EvalAI": state.evalai_url,
        "EvalAI's queue": state.queue_url,
        "phases": ", ".join(state.phases),
        "teams": ", ".join(state.participant_tokens),
        "logs": str(state.folder / "logs"),
    }
    return list(places.items())


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

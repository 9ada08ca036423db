"""The command line: `leaderboard`. Commands live in modules that are imported when they are called."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version

from cyclopts import App, CycloptsError

from evaluation.errors import EvaluationError

WRONG_USAGE = 2
INTERRUPTED = 130  # what a shell shows for Ctrl-C
NOT_INSTALLED = (
    "This command needs the embedded stack, which is not installed. Run: pip install 'leaderboard-flows[embedded]'"
)

app = App(
    name="leaderboard",
    help="Evaluates submissions to the CARLA Autonomous Driving Leaderboard.",
    version=partial(version, "leaderboard-flows"),
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
COMMANDS = {  # name -> (module and function in this package, help)
    "demo": ("embedded_stack:demo", "Evaluate one submission on this machine, from the queue to its leaderboard row."),
    "up": ("embedded_stack:up", "Start the embedded stack and keep it until Ctrl-C."),
    "submit": ("embedded_stack:submit", "Send a submission to the running stack."),
    "status": ("embedded_stack:status", "Show all submissions of the running stack, or one of them."),
    "env": ("embedded_stack:env", "Print the shell variables with which any program reaches the running stack."),
    "cancel": ("embedded_stack:cancel", "Cancel a submission, as its team does at EvalAI."),
    "resume": ("embedded_stack:resume", "Resume a failed submission, as a challenge host does at EvalAI."),
    "merge": ("merge:merge", "Merge the shards' result files into one."),
    "explain": ("reconcile:explain", "Show the stage of a submission, why it is there, and what comes next."),
    "reconcile": ("reconcile:reconcile", "Compare EvalAI, the ledger, Prefect and the clusters; repair what is safe."),
    "verify": ("verify:verify", "Show why a result is held; release or reject it."),
    "report": ("report:report", "Write a submission's report as an HTML file, for operators or for its team."),
    "setup": ("setup:setup", "Fill a Prefect server: work pool, request budget, blocks from the secrets."),
    "doctor": ("doctor:doctor", "Check an installation; show what is wrong and what to do."),
    "bridge": ("setup:bridge", "Publish the queue's messages as Prefect events until it is stopped."),
}
GROUPS = {
    "queue": (
        "The dead-letter queue: messages that could not be evaluated, and their way back.",
        {
            "dead": ("queue:dead", "Show the dead letters: which submission, why, since when."),
            "redrive": ("queue:redrive", "Send dead letters back to the queue: one of them, or all."),
        },
    ),
    "compute": (
        "Any Python function as scalable asynchronous compute (docs/compute-client.md).",
        {
            "setup": ("compute:setup", "Save the blocks of a queue of jobs, and make the workers' pool."),
            "bridge": ("compute:bridge", "Publish the queue's messages as Prefect events until it is stopped."),
            "backlog": ("compute:backlog", "Measure how much work waits for each worker; publish it."),
            "resend": ("compute:resend", "Send the messages of jobs that have none."),
            "dead": ("compute_dead_letters:dead", "Show the queue's dead letters: which job, why, since when."),
            "redrive": ("compute_dead_letters:redrive", "Send dead letters back to the queue: one of them, or all."),
            "post": ("compute:post", "Post a job, and wait for its result if asked to."),
            "result": ("compute:result", "Show how a job stands, and its result or error."),
        },
    ),
    "batch": (
        "Python functions as AWS Batch jobs (docs/batch.md).",
        {"setup": ("batch:setup", "Save the block with which flows run functions on AWS Batch.")},
    ),
}


def _register(parent: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for name, (place, text) in commands.items():
        parent.command(f"cli.{place}", name=name, help=text)


_register(app, COMMANDS)
for _name, (_help, _commands) in GROUPS.items():
    _group = App(name=_name, help=_help, version_flags=[])
    _register(_group, _commands)
    app.command(_group)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command. Errors of ours end in one sentence and code 1, wrong usage in one and code 2, Ctrl-C in 130."""
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print("leaderboard:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(WRONG_USAGE)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        if not _lacks_embedded(error):
            raise
        print(NOT_INSTALLED, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _lacks_embedded(error: BaseException | None) -> bool:
    """Whether the package `embedded` is what cyclopts could not import a command for."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "embedded":
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    main()

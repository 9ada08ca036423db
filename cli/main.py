"""The command line: `leaderboard`. Commands live in modules that are imported when they are called."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from cyclopts import App, CycloptsError, Group
from cyclopts.help import format_usage

from cli.commands import COMMANDS_OF, GROUPS, OPERATORS, Commands
from cli.exit_codes import MEANINGS, ExitCode
from evaluation.errors import EvaluationError

NOT_INSTALLED = (
    "This command needs the embedded stack, which is not installed. Run: pip install 'leaderboard-flows[embedded]'"
)
HELP = frozenset({"--help", "-h"})
EPILOGUE = "\n\n".join(
    [
        "**Examples**",
        "`leaderboard status` shows the latest submissions with their scores.",
        "`leaderboard watch 7` follows submission 7; `leaderboard result 7 --json` has its metrics.",
        "`leaderboard explain 7` says why it is where it is, and what comes next.",
        "`leaderboard submit --phase leaderboard-10-MAP --image demo/agent:steady --wait` tries the embedded stack.",
        "**Exit codes**: " + "; ".join(f"{code.value}: {text}" for code, text in MEANINGS.items()) + ".",
        "Commands ask the embedded stack where one is up in this folder, else the installation of PREFECT_API_URL.",
    ]
)

app = App(
    name="leaderboard",
    help="Evaluates submissions to the CARLA Autonomous Driving Leaderboard.",
    help_epilogue=EPILOGUE,
    help_format="markdown",
    version=partial(version, "leaderboard-flows"),
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)


def _register(parent: App, commands: Commands, group: Group | None = None) -> None:
    for name, command in commands.items():
        example = f"Example: `leaderboard {command.example}`" if command.example else ""
        parent.command(f"cli.{command.place}", name=name, help=command.help, help_epilogue=example, group=group)


for _group, _commands in COMMANDS_OF.items():
    _register(app, _commands, _group)
for _name, (_help, _commands) in GROUPS.items():
    _sub = App(name=_name, help=_help, version_flags=[], group=OPERATORS, help_epilogue="")
    _register(_sub, _commands)
    app.command(_sub)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command. Errors of ours end in one sentence and code 1, wrong usage in two lines and 2, Ctrl-C in 130."""
    words = sys.argv[1:] if words is None else list(words)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # it only says that something is tried again, not what
    try:
        if HELP.intersection(words):
            _with_whole_text(words)
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        print("leaderboard:", " ".join(str(error).split()), file=sys.stderr)
        print(_usage(words), file=sys.stderr)
        sys.exit(ExitCode.WRONG_USAGE)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    except ImportError as error:
        if not _lacks_embedded(error):
            raise
        print(NOT_INSTALLED, file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    except BrokenPipeError:  # who read the output has left, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(int(code) if isinstance(code, int) else ExitCode.OK)


def _with_whole_text(words: Sequence[str]) -> None:
    """Let a command's help show all of its function's docstring: the list of commands has the first sentence only."""
    _, apps, _ = app.parse_commands([word for word in words if word not in HELP])
    if apps[-1].default_command is not None:
        apps[-1].help = None


def _usage(words: Sequence[str]) -> str:
    """Of the command that the words begin with."""
    chain, apps, _ = app.parse_commands(list(words))
    usage = format_usage(app, chain, execution_path=apps).plain.strip()
    return f"Usage: {usage}. More: {' '.join(('leaderboard', *chain))} --help"


def _lacks_embedded(error: BaseException | None) -> bool:
    """Whether the package `embedded` is what cyclopts could not import a command for."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "embedded":
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    main()

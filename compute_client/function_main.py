"""The process of a user's function: reads a body, calls `module:function`, writes what came of it.

    python -m compute_client.function_main module:function job-id outcome-file  < body

The body is one line of JSON on standard input, which then stays open for as long as somebody wants the result: its end
means that the parent is dead, and ends this process with all that it started.
"""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from compute_client.json_text import json_text

Function = Callable[[Any, str], object]


def load(name: str) -> Function:
    """The function that `module:function` names; raises ValueError saying what is wrong with the name."""
    module_name, _, path = name.partition(":")
    if not (module_name and path):
        raise ValueError(f"{name!r} names no function: it has to look like package.module:function")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # the module is anybody's, and may fail in any way
        raise ValueError(f"{name!r} cannot be imported: {type(error).__name__}: {_text(error)}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}, no function")
    return found  # type: ignore[no-any-return]


def call(function: Function, body: str, job_id: str) -> dict[str, object]:
    """`{"result": JSON text}`, or `{"error": {type, message, trace}}`."""
    try:
        result = function(json.loads(body), job_id)
    except BaseException as error:  # noqa: BLE001 - SystemExit of a user's function is its failure, too
        return _error(type(error).__name__, _text(error), "".join(traceback.format_exception(error)))
    try:
        text = json_text(result)
    except Exception as error:  # noqa: BLE001 - a result of anybody's class may fail in any way
        return _error(type(error).__name__, f"the result is not JSON: {_text(error)}", "")
    return {"result": text}


def _text(error: BaseException) -> str:
    """The error's own words; it may be unable to print itself."""
    try:
        return str(error)
    except BaseException as unprintable:  # noqa: BLE001 - the class is anybody's, and may end the process
        return f"(the error cannot be printed: {type(unprintable).__name__})"


def _error(kind: str, message: str, trace: str) -> dict[str, object]:
    return {"error": {"type": kind, "message": message, "trace": trace}}


def main(name: str, job_id: str, outcome: str) -> None:
    source = _take_input()
    body = source.readline()
    threading.Thread(target=_end_with_the_parent, args=(source,), daemon=True).start()
    file = Path(outcome)
    # What ends this process meanwhile, as os._exit does, leaves this.
    file.write_text(json.dumps({"misnamed": f"importing {name!r} ended its process"}), "ascii")
    try:
        function = load(name)
    except ValueError as error:
        content: dict[str, object] = {"misnamed": str(error)}
    else:
        file.unlink()
        content = call(function, body, job_id)
    # As a whole or not at all: ASCII, because a lone surrogate in a message is no UTF-8.
    file.write_text(json.dumps(content), "ascii")


def _take_input() -> IO[str]:
    """Standard input for ourselves; the user's function finds an empty one."""
    own = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    return own


def _end_with_the_parent(source: IO[str]) -> None:
    source.read()
    if os.getpgrp() == os.getpid():  # a group of our own
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
    # The thread still reads: not waiting for it, and not for threads of the function's.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

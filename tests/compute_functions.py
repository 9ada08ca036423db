"""Functions as a user of the compute client writes them, good and bad."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

ANSWER = 42


def answer(body: dict[str, int], message_id: str) -> dict[str, object]:
    return {"answer": body["number"] + 38, "id": message_id}


def echo(body: object, message_id: str) -> object:
    return body


def wait_for(body: dict[str, str], message_id: str) -> int:
    """Works until there is a file at the path that the body names; returns the process that computes."""
    while not Path(body["file"]).exists():
        time.sleep(0.02)
    return os.getppid()


def large(body: int, message_id: str) -> str:
    return "x" * body


def equal_keys(body: object, message_id: str) -> dict[object, int]:
    return {1: 1, "1": 2}


def not_json(body: object, message_id: str) -> object:
    return {1, 2}


def leave(body: object, message_id: str) -> NoReturn:
    sys.exit("enough")


def die(body: object, message_id: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(body: dict[str, str], message_id: str) -> str:
    """Leaves a mark at the path that the body names, and dies where there is none yet."""
    mark = Path(body["mark"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def read_input(body: object, message_id: str) -> str:
    print("what a function prints is nobody's result")
    return sys.stdin.read()


def hold_the_interpreter(body: float, message_id: str) -> str:
    """Compute without a pause, as a bad extension does."""
    end = time.monotonic() + body
    while time.monotonic() < end:
        sum(range(1000))
    return "done"


def hang(body: dict[str, str], message_id: str) -> None:
    """Write the pids of this process and of a child, then never end."""
    child = subprocess.Popen(["sleep", "600"])
    file = Path(body["pids"])
    file.with_suffix(".tmp").write_text(f"{os.getpid()} {child.pid}")
    file.with_suffix(".tmp").rename(file)
    time.sleep(600)


def count_calls(body: dict[str, Any], message_id: str) -> int:
    """Append a line to the file that the body names, wait as long as it says; returns how many lines there are."""
    file = Path(body["file"])
    with file.open("a") as lines:
        lines.write(f"{message_id}\n")
    time.sleep(body.get("seconds", 0))
    return len(file.read_text().splitlines())


def name_of_a_file(body: object, message_id: str) -> NoReturn:
    """Fails with a text that is no UTF-8, as the name of a file can be."""
    raise ValueError("cannot parse " + os.fsdecode(b"caf\xe9.txt"))


class Unprintable(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def unprintable(body: object, message_id: str) -> NoReturn:
    raise Unprintable


class EndsWhenPrinted(ValueError):
    def __str__(self) -> str:
        sys.exit(0)


def ends_when_printed(body: object, message_id: str) -> NoReturn:
    raise EndsWhenPrinted


class UnreadableMapping(dict[str, int]):
    def items(self) -> NoReturn:  # type: ignore[override]
        raise KeyError("nothing here")


def unreadable_result(body: object, message_id: str) -> object:
    return UnreadableMapping(answer=42)


def leave_a_daemon(body: dict[str, str], message_id: str) -> str:
    """Start a process in a session of its own, and return while it runs."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(body["pids"]).write_text(str(child.pid))
    return "done"

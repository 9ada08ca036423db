"""The app on a real socket, in a thread of this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from evaluation.errors import DeadlineExceeded

_START_SECONDS = 10.0


@contextmanager
def serving(app: Starlette, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve until the block ends; yields the address, without a slash at its end. Port 0 takes a free one."""
    with socket.create_server((host, port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="evalai-standin", daemon=True)
        thread.start()
        try:
            _wait_until_started(server)
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=_START_SECONDS)


def _wait_until_started(server: uvicorn.Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"The stand-in for EvalAI did not start within {_START_SECONDS:g} s")
        time.sleep(0.01)

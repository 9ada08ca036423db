"""Which installation a command talks to: the embedded stack where one is up here, else that of PREFECT_API_URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

from deployments.settings import Settings
from deployments.stack_state import LOOPBACK, StackState, read_state
from evaluation.errors import InvalidConfiguration
from prefect_api.errors import prefect_errors


@dataclass(frozen=True)
class Installation:
    """Everything else about it is in the blocks of its Prefect server."""

    prefect_api_url: str
    stack: StackState | None = None  # None for a real one

    def __str__(self) -> str:
        return f"{'the embedded stack' if self.stack else 'the installation'} at {self.prefect_api_url}"


@contextmanager
def installation(settings: Settings) -> Iterator[Installation]:
    """Let Prefect's clients in this context talk to the installation.

    Raises InvalidConfiguration where there is none, ServiceUnavailable while the stack starts, and both for a Prefect
    server that does not answer the body as it should.
    """
    stack = _stack(settings)
    if stack is not None:
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = LOOPBACK  # all of a stack is on this machine
        own = {PREFECT_API_URL: stack.prefect_api_url}
        with (
            temporary_settings(updates=own, restore_defaults={PREFECT_API_KEY, PREFECT_API_AUTH_STRING}),
            prefect_errors(f"Asking Prefect's server at {stack.prefect_api_url}"),
        ):
            yield Installation(stack.prefect_api_url, stack)
        return
    address = PREFECT_API_URL.value()
    if not address:
        raise InvalidConfiguration(
            "There is no installation to ask",
            f"no stack is running in {settings.state_dir.absolute()}, and PREFECT_API_URL is not set",
            "Start a stack with `make up`, or set PREFECT_API_URL to your Prefect server's.",
        )
    with prefect_errors(f"Asking Prefect's server at {address}"):
        yield Installation(address)


def _stack(settings: Settings) -> StackState | None:
    try:
        return read_state(settings)
    except InvalidConfiguration:
        return None

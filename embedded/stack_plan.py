"""Where the parts of the embedded stack are: addresses, free ports, and what its processes get in their environment."""

import contextlib
import os
import socket
import uuid
from pathlib import Path

from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS, StackState
from embedded import challenge
from embedded.aws import DEAD_LETTER_QUEUE, QUEUE, queue_url
from embedded.external_evalai import ExternalEvalAI
from embedded.prefect_server import prefect_environment
from embedded.processes import MARKER

# Variables of the user's own clouds and Prefect, which the stack's processes do not get.
FOREIGN = ("AWS_", "PREFECT_", "LEADERBOARD_")


def plan_stack(
    settings: Settings, folder: Path, tokens: challenge.Tokens, evalai: ExternalEvalAI | None = None
) -> StackState:
    """Addresses on free ports; the wanted ones where these are free. Nothing is started."""
    prefect, aws, evalai_port = free_ports((settings.prefect_port, settings.aws_port, settings.evalai_port))
    aws_url = f"http://127.0.0.1:{aws}"
    return StackState(
        id=uuid.uuid4().hex,
        pid=os.getpid(),
        ready=False,
        folder=folder,
        prefect_url=f"http://127.0.0.1:{prefect}",
        aws_url=aws_url,
        evalai_url=evalai.url if evalai else f"http://127.0.0.1:{evalai_port}",
        region=settings.region,
        queue_url=queue_url(aws_url, QUEUE),
        dead_letter_url=queue_url(aws_url, DEAD_LETTER_QUEUE),
        work_pool=settings.work_pool,
        challenge_pk=evalai.challenge_pk if evalai else challenge.CHALLENGE,
        phases=evalai.phases if evalai else challenge.PHASES,
        host_token=tokens.host,
        participant_tokens=tokens.participants,
    )


def taken_ports(settings: Settings, state: StackState, external_evalai: bool = False) -> list[str]:
    """A sentence for each wanted port in whose place another one is used. An external EvalAI has a port of its own."""
    wanted = (
        ("Prefect", settings.prefect_port, state.prefect_url, "LEADERBOARD_PREFECT_PORT"),
        ("AWS", settings.aws_port, state.aws_url, "LEADERBOARD_AWS_PORT"),
        ("EvalAI", settings.evalai_port, state.evalai_url, "LEADERBOARD_EVALAI_PORT"),
    )
    return [
        f"Another program has port {port}: {name} is at {url} this time. {variable} chooses another port."
        for name, port, url, variable in (wanted[:-1] if external_evalai else wanted)
        if not url.endswith(f":{port}")
    ]


def free_ports(wanted: tuple[int, ...]) -> list[int]:
    """The wanted ports, or any free ones in the place of those that are taken."""
    with contextlib.ExitStack() as held:  # held until all are chosen, so that none is chosen twice
        return [_bind(held, port) for port in wanted]


def _bind(held: contextlib.ExitStack, port: int) -> int:
    for candidate in (port, 0):
        listener = held.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", candidate))
            return int(listener.getsockname()[1])
    raise OSError(f"no free port on 127.0.0.1 in the place of {port}")


def child_environment(settings: Settings, state: StackState) -> dict[str, str]:
    """What every child gets: this process's variables without foreign ones, the embedded AWS, the embedded Prefect."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    nowhere = os.devnull
    return {
        **own,
        **EMBEDDED_CREDENTIALS,
        "AWS_ENDPOINT_URL": state.aws_url,
        "AWS_DEFAULT_REGION": state.region,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        **prefect_environment(state.prefect_api_url, state.folder / "prefect"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        "LEADERBOARD_WORK_POOL": settings.work_pool,
        "LEADERBOARD_WORK_POOL_TYPE": settings.work_pool_type,
        "LEADERBOARD_RECOVERY_POOL": settings.recovery_pool,
        "LEADERBOARD_REGION": settings.region,
        "LEADERBOARD_AWS_ENDPOINT_URL": state.aws_url,
        "LEADERBOARD_CHALLENGE_PK": str(state.challenge_pk),
        "LEADERBOARD_EVALAI_REQUESTS_PER_MINUTE": str(settings.evalai_requests_per_minute),
        MARKER: state.id,
    }

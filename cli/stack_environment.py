"""`leaderboard env`: how any program reaches the running embedded stack."""

import shlex

from deployments.settings import load_settings
from deployments.stack_state import EMBEDDED_CREDENTIALS, LOOPBACK, StackState, read_state


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
        # `leaderboard setup` stores these in the blocks; without the address, the pods would ask the real AWS.
        "LEADERBOARD_AWS_ENDPOINT_URL": state.aws_url,
        "LEADERBOARD_REGION": state.region,
        "LEADERBOARD_CHALLENGE_PK": str(state.challenge_pk),
        "PREFECT_API_URL": state.prefect_api_url,
        "LEADERBOARD_STATE_DIR": str(state.folder),
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }

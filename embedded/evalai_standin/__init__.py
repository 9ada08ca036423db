"""A stand-in for EvalAI's server, in memory, for the demo and the tests.

It answers as the real one was recorded to (tests/contract/recordings), refusals and faults included; the endpoints are
those that this project uses. `python -m embedded.evalai_standin --port P --config FILE.json`, or `create_app`.
"""

from embedded.evalai_standin.app import create_app, replace_state, state_of
from embedded.evalai_standin.config import Challenge, Config, Phase, Split, Team, User
from embedded.evalai_standin.faults import Fault
from embedded.evalai_standin.queue import Publisher, QueueMessage
from embedded.evalai_standin.server import serving
from embedded.evalai_standin.state import State

__all__ = [
    "Challenge",
    "Config",
    "Fault",
    "Phase",
    "Publisher",
    "QueueMessage",
    "Split",
    "State",
    "Team",
    "User",
    "create_app",
    "replace_state",
    "serving",
    "state_of",
]

"""Asks the simulator whether it still answers, by CARLA's own RPC (msgpack-rpc on CARLA_PORT).

An open port is not enough: the kernel accepts connections for a process that is frozen. The question is one that CARLA
answers in its game thread (`get_episode_settings`; also between two ticks of the synchronous mode), so that a server
whose rendering hangs is found. Any byte counts as an answer.

The containers of a pair share one network namespace on Kubernetes (a pod), on Batch (the instance's network) and on
this machine, so 127.0.0.1 leads to the simulator from the supervisor everywhere.
"""

import socket
import time
from threading import Event

_SLICE_SECONDS = 0.5
_METHOD = b"get_episode_settings"
# [request 0, message id 0, method, no arguments] in msgpack
_QUESTION = b"\x94\x00\x00" + bytes([0xA0 | len(_METHOD)]) + _METHOD + b"\x90"


def simulator_answers(port: int, stop: Event, seconds: float) -> bool:
    """Whether the simulator on this port answers within `seconds`.

    False at once where nothing listens. True where `stop` ends the question: then neither party is at fault.
    """
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SLICE_SECONDS) as connection:
            connection.sendall(_QUESTION)
            while time.monotonic() < deadline:
                if stop.is_set():
                    return True
                try:
                    return bool(connection.recv(1))
                except TimeoutError:
                    continue
    except OSError:
        return False
    return False

"""Stands in for CARLA: listens on CARLA_PORT of this machine and ticks when it is asked to.

A line is a request, a line is the answer: `hello` -> `hello`, `route <id>` -> `ok`, `tick` -> `tick <n>`. A request of
CARLA's own RPC (msgpack), by which the supervisor asks whether the simulator answers, gets an empty answer.
The tag of AGENT_IMAGE may make it die (local_jobs/demo_images.py). Standard library only, for a quick start.
"""

import os
import socket
import socketserver
from pathlib import Path

SEGMENTATION_FAULT = 139
RPC_REQUEST, RPC_ANSWER = b"\x94", b"\x94\x01\x00\xc0\xc0"  # [response 1, message id 0, no error, no result]


class Simulation(socketserver.StreamRequestHandler):
    """One client's connection."""

    ticks = 0  # of the whole simulator

    def handle(self) -> None:
        if self.connection.recv(1, socket.MSG_PEEK) == RPC_REQUEST:
            self.wfile.write(RPC_ANSWER)
            return
        for line in self.rfile:
            self.wfile.write(f"{self.answer(line.decode().split())}\n".encode())

    def answer(self, words: list[str]) -> str:
        match words:
            case ["hello"]:
                return "hello"
            case ["route", route]:
                self.route = route
                self.route_started = Simulation.ticks
                print(f"loading the world of route {route}", flush=True)
                return "ok"
            case ["tick"]:
                Simulation.ticks += 1
                self.report()
                return f"tick {Simulation.ticks}"
            case _:
                return "what?"

    def report(self) -> None:
        if Simulation.ticks % 20 == 0:
            print(f"tick {Simulation.ticks}", flush=True)
        if Simulation.ticks == self.route_started + 2 and dies_on(self.route):
            print("Signal 11 caught. Malloc Size=65538 LargeMemoryPoolOffset=65554", flush=True)
            os._exit(SEGMENTATION_FAULT)

    route = ""
    route_started = 0


def dies_on(route: str) -> bool:
    """Whether this simulator is to die on the route: always on a poison route, elsewhere once in this pod."""
    tag = os.environ.get("AGENT_IMAGE", "").rpartition(":")[2]
    if tag == f"poison-route-{route}":
        return True
    if tag != f"simulator-crash-on-route-{route}":
        return False
    died_before = Path(os.environ["PAIR_DIR"], "simulator", "died-before")
    if died_before.exists():
        return False
    died_before.touch()
    return True


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    port = int(os.environ["CARLA_PORT"])
    with Server(("127.0.0.1", port), Simulation) as server:
        print(f"listening on port {port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()

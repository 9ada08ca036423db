"""A device plugin as NVIDIA's, with made-up GPUs: the kubelet sees UUIDs, a container gets NVIDIA_VISIBLE_DEVICES.

As much of gRPC and of Kubernetes' v1beta1.DevicePlugin (k8s.io/kubelet, deviceplugin/v1beta1/api.proto) as that takes.
"""

import os
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, TrailersReceived

RESOURCE, ENDPOINT = "nvidia.com/gpu", "gpu.sock"
ANSWER_SECONDS = 10


class DevicePluginError(Exception):
    """The kubelet refuses the plugin."""


class DevicePlugin:
    """Offers `gpus`, their UUIDs, through the kubelet's folder for plugins."""

    def __init__(self, folder: Path, gpus: Sequence[str]) -> None:
        self._folder = folder
        self._gpus = gpus
        self._server = socket.socket(socket.AF_UNIX)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve_forever)

    def start(self) -> None:
        """Returns when the kubelet knows it. Raises DevicePluginError, or OSError where there is no kubelet."""
        # A socket's path has 108 bytes at most; this way the folder's may be longer.
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            folder = f"/proc/self/fd/{descriptor}"
            self._server.bind(f"{folder}/{ENDPOINT}")
            self._server.listen()
            self._thread.start()
            _register_soon(f"{folder}/kubelet.sock")
        finally:
            os.close(descriptor)

    def stop(self) -> None:
        for each in (self._server, self._connection):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._server.close()

    def _serve_forever(self) -> None:
        """One connection after the other: the kubelet has one."""
        with suppress(OSError):  # stopped
            while True:
                self._connection, _ = self._server.accept()
                with self._connection:
                    self._serve(self._connection)

    def _serve(self, connection: socket.socket) -> None:
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        paths, bodies = dict[int, str](), defaultdict[int, bytes](bytes)
        for event in _events(connection, http):
            match event:
                case RequestReceived(stream_id=int(stream), headers=list(headers)):
                    paths[stream] = {str(name): str(value) for name, value in headers}[":path"]
                case DataReceived(stream_id=int(stream), data=bytes(data)):
                    bodies[stream] += data
                case StreamEnded(stream_id=int(stream)):
                    self._answer(http, stream, paths.pop(stream), bodies.pop(stream, b""))

    def _answer(self, http: H2Connection, stream: int, path: str, body: bytes) -> None:
        method = path.rpartition("/")[2]
        answer = b""  # also of GetDevicePluginOptions: none
        if method == "ListAndWatch":
            answer = b"".join(_field(1, _field(1, gpu.encode()) + _field(2, b"Healthy")) for gpu in self._gpus)
        elif method == "Allocate":
            answer = b"".join(_field(1, _visible(_fields(wanted))) for wanted in _fields(body[5:]))
        http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        http.send_data(stream, _message(answer))
        if method != "ListAndWatch":  # that one goes on: nothing ever changes
            http.send_headers(stream, [("grpc-status", "0")], end_stream=True)


def _register_soon(socket_path: str) -> None:
    """The kubelet's socket is there a moment before somebody listens."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            _register(socket_path)
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _register(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(socket_path)
        http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        for event in _events(connection, http, _registration):
            match event:
                case TrailersReceived(headers=list(headers)):
                    answer = {str(name): str(value) for name, value in headers}
                    if answer["grpc-status"] != "0":
                        raise DevicePluginError(answer.get("grpc-message", "no reason given"))
                    return
    raise DevicePluginError("the kubelet closed the connection")


def _registration(http: H2Connection) -> None:
    request = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost")]
    request += [(":path", "/v1beta1.Registration/Register"), ("te", "trailers"), ("content-type", "application/grpc")]
    http.send_headers(1, request)
    words = ("v1beta1", ENDPOINT, RESOURCE)
    message = b"".join(_field(number, word.encode()) for number, word in enumerate(words, 1))
    http.send_data(1, _message(message), end_stream=True)


def _events(
    connection: socket.socket, http: H2Connection, begin: Callable[[H2Connection], None] = lambda _: None
) -> Iterator[Event]:
    """What the other side does, until it closes; what is to be sent goes out before the next wait."""
    http.initiate_connection()
    begin(http)
    while True:
        connection.sendall(http.data_to_send())
        data = connection.recv(65536)
        if not data:
            return
        yield from http.receive_data(data)


def _visible(gpus: Sequence[bytes]) -> bytes:
    """ContainerAllocateResponse.envs"""
    return _field(1, _field(1, b"NVIDIA_VISIBLE_DEVICES") + _field(2, b",".join(gpus)))


def _message(content: bytes) -> bytes:
    """gRPC's frame: not compressed, the length."""
    return struct.pack(">BI", 0, len(content)) + content


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field with a length; shorter than 16 KiB."""
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + content


def _fields(message: bytes) -> list[bytes]:
    """The contents of a message whose fields all have a length."""
    found = []
    while message:
        length, start = message[1], 2
        if length >= 128:
            length, start = length & 127 | message[2] << 7, 3
        found.append(message[start : start + length])
        message = message[start + length :]
    return found

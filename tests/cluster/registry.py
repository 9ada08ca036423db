"""A registry on loopback that a container runtime pulls from: as much of OCI's distribution protocol as that takes."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from types import TracebackType
from typing import Self

from images import MANIFEST_TYPE, ImageFolder


class Registry:
    """Context manager; images are `<host>/<repository>:<tag>`. Runtimes take a loopback address without TLS."""

    def __init__(self, images: ImageFolder) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"images": images}))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of /v2/<repository>/manifests/<tag or digest> and /v2/<repository>/blobs/<digest>."""

    images: ImageFolder
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        digest, blob = self._wanted()
        self.send_response(404 if blob is None else 200)
        self.send_header("Content-Length", str(blob.stat().st_size if blob else 0))
        if blob:
            kind = MANIFEST_TYPE if "/manifests/" in self.path else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if blob and with_body:
            with blob.open("rb") as content:
                copyfileobj(content, self.wfile)

    def _wanted(self) -> tuple[str, Path | None]:
        repository, _, last = self.path.partition("?")[0].removeprefix("/v2/").rpartition("/")
        name, _, kind = repository.rpartition("/")
        digest = self.images.digest_of(f"{name}:{last}") if kind == "manifests" else None
        digest = digest or last
        return digest, self.images.blob(digest)

    def log_message(self, format: str, *values: object) -> None:
        """Nobody reads it."""

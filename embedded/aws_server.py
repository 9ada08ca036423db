"""moto's server with the atomic writes of AWS.

DynamoDB and S3 check a write's condition and write in one step. moto does the two in one thread of many: two of
sixteen at once were seen to meet the same `attribute_not_exists`. Here one request at a time reaches these services.
"""

import argparse
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_DYNAMODB = "DynamoDB_"  # how the header X-Amz-Target begins
_S3_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


class AtomicWrites:
    """A WSGI application that lets requests of DynamoDB and conditional writes of S3 through one after the other."""

    def __init__(self) -> None:
        self._moto: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        self._one = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _is_conditional(environ):
            return self._moto(environ, start_response)
        with self._one:
            return self._moto(environ, start_response)


def _is_conditional(environ: "WSGIEnvironment") -> bool:
    if environ.get("HTTP_X_AMZ_TARGET", "").startswith(_DYNAMODB):
        return True
    return environ["REQUEST_METHOD"] == "PUT" and any(name in environ for name in _S3_CONDITIONS)


def aws_server(port: int = 0, host: str = "127.0.0.1") -> BaseWSGIServer:
    """The server, not yet serving. Port 0 takes a free one: `server_port` tells it."""
    return make_server(host, port, AtomicWrites(), threaded=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m embedded.aws_server")
    parser.add_argument("--port", type=int, required=True)
    aws_server(parser.parse_args().port).serve_forever()

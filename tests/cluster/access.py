"""Access to the API server of a control plane: a kubeconfig, and a client for setting it up."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from certificates import KeyPair


class AdminClient:
    """Just enough of an API client to set the cluster up, so that the harness needs the standard library only."""

    def __init__(self, server: str, authority: Path, pair: KeyPair) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.load_cert_chain(pair.certificate, pair.key)

    def __call__(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """Raises urllib.error.URLError (HTTPError with the server's status where it answers)."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._server + path, data, headers, method=method)  # noqa: S310 our own server
        with urllib.request.urlopen(request, timeout=10, context=self._tls) as answer:  # noqa: S310 our own server
            content: bytes = answer.read()
        return content


def write_kubeconfig(path: Path, server: str, authority: Path, pair: KeyPair) -> None:
    """A self-contained kubeconfig (JSON is YAML) for the user that the certificate of `pair` names."""
    user = {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "leaderboard-test", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "leaderboard-test", "context": {"cluster": "leaderboard-test", "user": "user"}}],
        "current-context": "leaderboard-test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=2))


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()

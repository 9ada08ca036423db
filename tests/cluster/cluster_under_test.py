"""The cluster that the tests in this folder run against."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from control_plane import ControlPlane
from kubernetes_asyncio import client, config


@dataclass(frozen=True)
class ClusterUnderTest:
    """`plane` is None where KUBECONFIG names the cluster: then no node is simulated and no server can be restarted."""

    kubeconfig: Path
    plane: ControlPlane | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.plane.nodes if self.plane else ()

    def restart_apiserver(self, *, grace_seconds: float = 10) -> None:
        """Blocks until it is ready again; skips the test where the server is not ours."""
        if self.plane is None:
            pytest.skip("the API server of KUBECONFIG is not ours to restart")
        self.plane.restart_apiserver(grace_seconds=grace_seconds)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[client.ApiClient]:
        async with await config.new_client_from_config(config_file=str(self.kubeconfig)) as api:
            yield api

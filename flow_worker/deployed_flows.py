"""What the worker runs: the deployments' flows, imported once, and the settings that a deployment gives to its runs."""

import logging
import os
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import prefect.settings
from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import SettingsContext, get_settings_context
from prefect.flows import load_flow_from_entrypoint

from evaluation.errors import InvalidConfiguration
from prefect_api.shared import shared_by_runs

_LOG = logging.getLogger("prefect.flow_worker")
OF_THE_LOG = "PREFECT_LOGGING_"  # how a process logs is set up at its start
OTHER_WORKERS = "Use an entrypoint `module.function`, or a worker of type process."


@shared_by_runs
async def _deployment(client: PrefectClient, deployment: UUID) -> DeploymentResponse:
    return await client.read_deployment(deployment)


class DeployedFlows:
    """Deployments as they were lately, and their flows by entrypoint."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow[..., Any]] = {}

    async def deployment(self, client: PrefectClient, flow_run: FlowRun) -> DeploymentResponse:
        """The run's deployment; raises ObjectNotFound, and InvalidConfiguration for a run that has none."""
        if flow_run.deployment_id is None:
            raise InvalidConfiguration(f"The run {flow_run.name} belongs to no deployment", remedy=OTHER_WORKERS)
        return await _deployment(client, flow_run.deployment_id)

    def flow(self, deployment: DeploymentResponse) -> Flow[..., Any]:
        """The deployment's flow, imported by name; pull steps are not followed, as they change the whole process.

        Raises InvalidConfiguration where it cannot be run here.
        """
        entrypoint = deployment.entrypoint or ""
        if entrypoint not in self._flows:
            self._flows[entrypoint] = _import(deployment.name, entrypoint)
        return self._flows[entrypoint]


def _import(name: str, entrypoint: str) -> Flow[..., Any]:
    if not entrypoint or ":" in entrypoint:
        cause = f"its entrypoint {entrypoint!r} is a file's, whose place would be the working directory of all runs"
        raise InvalidConfiguration(f"The deployment {name} cannot run in a shared process", cause, OTHER_WORKERS)
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:
        summary = f"The flow {entrypoint} of the deployment {name} cannot be imported"
        raise InvalidConfiguration(summary, f"{type(error).__name__}: {error}") from error
    if not flow.isasync or flow.isgenerator:
        cause = "it is no `async def` function, so it would stop all other runs"
        raise InvalidConfiguration(f"The flow {entrypoint} cannot run in a shared process", cause, OTHER_WORKERS)
    return flow


class RunSettings:
    """Prefect's settings by the variables that a deployment names for its runs: made once, as that takes long."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, str | None], ...], SettingsContext] = {}

    def of(self, environment: Mapping[str, str | None]) -> SettingsContext:
        """To be entered in the run's task. Variables that are not Prefect's are the process's.

        Raises InvalidConfiguration for one that differs from the process's, or that Prefect does not know.
        """
        key = tuple(sorted(environment.items()))
        if key not in self._made:
            self._made[key] = _settings(environment)
        made = self._made[key]
        return SettingsContext.model_construct(profile=made.profile, settings=made.settings)


def _settings(environment: Mapping[str, str | None]) -> SettingsContext:
    updates: dict[Any, Any] = {}
    for variable, value in environment.items():
        if variable.startswith(OF_THE_LOG):
            _LOG.warning(
                "%s=%s is left out: the runs of a worker share one log. Set it for the worker.", variable, value
            )
        elif variable.startswith("PREFECT_"):
            updates[_setting(variable)] = value
        elif os.environ.get(variable) != value:
            raise InvalidConfiguration(
                f"The variable {variable} cannot be set for one run",
                "the worker's process has one environment for all of them",
                f"Set it for the worker. {OTHER_WORKERS}",
            )
    context = get_settings_context()
    settings = context.settings.copy_with_update(updates=updates) if updates else context.settings
    return SettingsContext(profile=context.profile, settings=settings)


def _setting(variable: str) -> Any:
    try:
        return getattr(prefect.settings, variable)
    except AttributeError as error:
        raise InvalidConfiguration(
            f"Prefect has no setting {variable}", "a deployment's job variables name it"
        ) from error

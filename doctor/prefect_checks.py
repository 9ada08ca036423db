"""Prefect: server, work pool, workers, request budget, what `prefect deploy --all` made, and the blocks."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import prefect
import yaml
from packaging.version import Version
from prefect.blocks.core import Block
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials

from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from deployments.operator_notifications import AUTOMATIONS
from deployments.project_files import deployments_file
from deployments.settings import Settings
from doctor.context import DoctorContext
from doctor.findings import Check, NotChecked
from evaluation.errors import InvalidConfiguration
from prefect_api.errors import prefect_answer
from prefect_api.request_budget import FEWEST, UNITS

SET_UP = "Run `leaderboard setup`."
DEPLOY = "Run `prefect deploy --all`."


def prefect_checks(context: DoctorContext, deployed: Path | None = None) -> Iterator[Check]:
    """`deployed` is the prefect.yaml that says what has to be there."""
    specs = _deployments_of(deployed or deployments_file())
    yield Check("Prefect: server", partial(_server, context))
    settings = context.settings
    yield Check("Prefect: work pool", partial(_pool, context, settings.work_pool))
    yield Check("Prefect: worker", partial(_worker, context, settings.work_pool))
    yield Check("Prefect: recovery pool", partial(_pool, context, settings.recovery_pool))
    yield Check("Prefect: recovery worker", partial(_worker, context, settings.recovery_pool))
    yield Check("Prefect: request budget", partial(_budget, context))
    for spec in specs:
        yield Check(f"Prefect: deployment {spec['name']}", partial(_deployment, context, spec))
        for trigger in spec.get("triggers") or ():
            yield Check(f"Prefect: automation {trigger['name']}", partial(_automation, context, spec, trigger["name"]))
    yield Check("Prefect: notifications", partial(_notifications, context))
    if not specs:
        yield Check("Prefect: deployments", _deployments_unknown)
    yield from _blocks(context)


def _server(context: DoctorContext) -> str:
    client = context.prefect()
    if client.server_type is ServerType.CLOUD:  # always new enough, and has no such address
        return f"Prefect Cloud at {context.installation.prefect_api_url}"
    with prefect_answer("Asking for the server's version"):
        theirs, ours = Version(client.api_version()), Version(prefect.__version__)
    if theirs.release[:2] < ours.release[:2]:
        raise InvalidConfiguration(
            f"Prefect's server is {theirs}, older than what the flows use ({ours})",
            remedy=f"Upgrade the server to Prefect {ours.release[0]}.{ours.release[1]}.",
        )
    return f"Prefect {theirs} at {context.installation.prefect_api_url}"


def _pool(context: DoctorContext, name: str) -> str:
    client = _client(context)
    try:
        with prefect_answer("Asking for the work pool"):
            pool = client.read_work_pool(name)
    except ObjectNotFound as error:
        raise InvalidConfiguration(f"There is no work pool {name}", remedy=SET_UP) from error
    if pool.is_paused:
        remedy = f"Resume it: prefect work-pool resume {pool.name}"
        raise InvalidConfiguration(f"The work pool {pool.name} is paused", "no run starts", remedy)
    limit = "" if pool.concurrency_limit is None else f", {pool.concurrency_limit} runs at once"
    return f"{pool.name} ({pool.type}{limit})"


def _worker(context: DoctorContext, name: str) -> str:
    context.need(lambda: _pool(context, name), "the work pool")
    with prefect_answer("Asking for the workers"):
        workers = _client(context).read_workers_for_work_pool(name)
    online = sorted(worker.name for worker in workers if worker.status == "ONLINE")
    if not online:
        raise InvalidConfiguration(
            f"No worker is online in the work pool {name}",
            f"{len(workers)} have been" if workers else "there has never been one",
            f"Start one: prefect worker start --pool {name}",
        )
    return f"{len(online)} online: {', '.join(online)}"


def _budget(context: DoctorContext) -> str:
    client, name = _client(context), context.evalai().rate_limit
    try:
        with prefect_answer("Asking for EvalAI's request budget"):
            limit = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound as error:
        raise InvalidConfiguration(f"There is no rate limit {name}", "no run can ask EvalAI", SET_UP) from error
    a_minute = (limit.limit + 60 * limit.slot_decay_per_second) / UNITS
    allowed = context.settings.evalai_requests_per_minute
    if not (limit.active and limit.slot_decay_per_second > 0 and limit.limit >= FEWEST and a_minute <= allowed):
        state = f"{limit.limit} slots, {limit.slot_decay_per_second:g} more a second, {UNITS} for a request"
        problem = f"{state}{'' if limit.active else ', not active'}; EvalAI allows {allowed} requests a minute"
        raise InvalidConfiguration(f"The rate limit {name} does not hold EvalAI's budget", problem, SET_UP)
    return f"{a_minute:g} requests a minute at most"


def _deployments_of(file: Path) -> list[Mapping[str, Any]]:
    """What prefect.yaml deploys; nothing where that is not here."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError:
        return []
    return list(content["deployments"])


def _deployments_unknown() -> str:
    raise NotChecked("prefect.yaml, which names them, was not found", "Install leaderboard-flows anew.")


def _deployed(context: DoctorContext, spec: Mapping[str, Any]) -> DeploymentResponse:
    client, name = _client(context), spec["name"]
    with prefect_answer(f"Asking for the deployment {name}"):
        found = client.read_deployments(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])))
    ours = [deployment for deployment in found if deployment.entrypoint == spec["entrypoint"]]
    if not ours:
        summary = f"There is no deployment {name} of {spec['entrypoint']}"
        raise InvalidConfiguration(summary, f"{len(found)} of that name", DEPLOY)
    return ours[0]


def _pool_of(context: DoctorContext, spec: Mapping[str, Any]) -> str:
    """prefect.yaml names the pools by their defaults; the settings may name others."""
    named = spec.get("work_pool", {}).get("name")
    recovery = named == Settings.model_fields["recovery_pool"].default
    return context.settings.recovery_pool if recovery else context.settings.work_pool


def _deployment(context: DoctorContext, spec: Mapping[str, Any]) -> str:
    deployment = _deployed(context, spec)
    name, pool = deployment.name, _pool_of(context, spec)
    if deployment.paused:
        raise InvalidConfiguration(f"The deployment {name} is paused", "no run starts", "Resume it in Prefect.")
    if deployment.work_pool_name != pool:
        elsewhere = f"The deployment {name} runs in the work pool {deployment.work_pool_name}, not in {pool}"
        raise InvalidConfiguration(elsewhere, "", f"{DEPLOY} Or set LEADERBOARD_WORK_POOL.")
    wanted, active = len(spec.get("schedules") or ()), [each for each in deployment.schedules if each.active]
    if len(active) < wanted:
        raise InvalidConfiguration(
            f"The deployment {name} has {len(active)} active schedules, not {wanted}", "it does not run", DEPLOY
        )
    return f"ready, in {pool}{', by schedule' if wanted else ''}"


def _automation(context: DoctorContext, spec: Mapping[str, Any], name: str) -> str:
    deployment = context.need(lambda: _deployed(context, spec), f"the deployment {spec['name']}")
    with prefect_answer(f"Asking for the automation {name}"):
        related = _client(context).read_resource_related_automations(f"prefect.deployment.{deployment.id}")
    ours = [automation for automation in related if automation.name == name]
    if not ours:
        raise InvalidConfiguration(f"There is no automation {name}", f"nothing starts {spec['name']} by it", DEPLOY)
    if not any(automation.enabled for automation in ours):
        raise InvalidConfiguration(
            f"The automation {name} is switched off",
            f"nothing starts {spec['name']} by it",
            "Switch it on in Prefect, or run `prefect deploy --all`.",
        )
    return "enabled"


def _notifications(context: DoctorContext) -> str:
    client = _client(context)
    with prefect_answer("Asking for the notifications"):
        found = {name: client.read_automations_by_name(name) for name in AUTOMATIONS}
    missing = [name for name, automations in found.items() if not automations]
    if missing and context.installation.stack:
        return "none: the embedded stack needs none"
    if missing:
        raise InvalidConfiguration(
            "No operator is notified of what only a person can repair",
            f"there is no automation {', '.join(missing)}",
            "Run `leaderboard setup --notify BLOCK`.",
        )
    off = [name for name, automations in found.items() if not any(each.enabled for each in automations)]
    if off:
        summary = f"The automation {', '.join(off)} is switched off"
        raise InvalidConfiguration(summary, "operators are not notified of everything", "Switch it on in Prefect.")
    return "operators are notified of what only a person can repair"


def _blocks(context: DoctorContext) -> Iterator[Check]:
    common: list[tuple[type[Block], str]] = [
        (AwsCredentials, document_names.CREDENTIALS),
        (EvalAI, document_names.EVALAI),
        (SubmissionQueue, document_names.QUEUE),
    ]
    own = [
        (kind, cluster) for cluster in context.clusters for kind in (LedgerTable, ArtifactBucket, LeaderboardCluster)
    ]
    for kind, name in (*common, *own):
        yield Check(f"Prefect: block {kind.get_block_type_slug()}/{name}", partial(_block, context, kind, name))
    yield Check("Prefect: blocks and secrets", partial(_agreement, context))


def _block(context: DoctorContext, kind: type[Block], name: str) -> str:
    context.block(kind, name)
    return "loads"


def _agreement(context: DoctorContext) -> str:
    """Names what differs, and no value: one of them is the token."""
    secrets, evalai = context.need(context.secrets, "the secrets"), context.need_block(EvalAI, document_names.EVALAI)
    values = [
        ("api_server", evalai.api_server, secrets.evalai.api_server),
        ("auth_token", evalai.auth_token.get_secret_value(), secrets.evalai.token.get_secret_value()),
        ("the phases", evalai.phases, dict(secrets.evalai.phases)),
        *((f"the table of {name}", context.table(name), secret.table) for name, secret in secrets.clusters.items()),
        *(
            (f"the bucket of {name}", context.bucket(name), secret.s3_bucket)
            for name, secret in secrets.clusters.items()
        ),
    ]
    differing = [name for name, block, secret in values if block != secret]
    if differing:
        raise InvalidConfiguration("The blocks are not what the secrets say", ", ".join(differing), SET_UP)
    return "agree"


def _client(context: DoctorContext) -> SyncPrefectClient:
    return context.need(context.prefect, "Prefect's server")

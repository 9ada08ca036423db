"""The plan of a submission: its shards, and the pool of their routes where they pull them. Every function blocks."""

from collections.abc import Mapping
from functools import cache

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from evaluation import storage_keys
from evaluation.pair.observations import Observations
from evaluation.provenance import sha256
from evaluation.pulling.durations import expected_seconds, merged_seconds
from evaluation.pulling.pool import RoutePool
from evaluation.shards import Plan, render_plan
from flows.evaluation_context import EvaluationContext
from flows.last_submissions import LastSubmissions
from flows.submission_folder import read_plan, read_pool


def make_plan(context: EvaluationContext) -> Plan:
    """The plan of an earlier attempt, so that its checkpoints fit; else a new one, stored."""
    artifacts, pk = context.artifacts, context.submission.pk
    route_file = cache(context.settings.read_route_file)
    plan = read_plan(artifacts, pk)
    if plan is None:
        plan = context.settings.plan(route_file())
        artifacts.write(storage_keys.plan_key(pk), render_plan(plan).encode(), "application/json")
    if plan.pulled and read_pool(artifacts, pk) is None:
        # Where a takeover run comes in between, the pool that is there first is the one.
        artifacts.write_version(
            storage_keys.pool_key(pk), _new_pool(context, plan, route_file()).render(), replaced=None
        )
    return plan


def _new_pool(context: EvaluationContext, plan: Plan, route_file: bytes) -> RoutePool:
    sizes = context.settings.route_sizes(route_file)
    earlier = [each.seconds for each in _DRIVEN.read(context.artifacts) if each.routes == sha256(route_file)]
    expected = expected_seconds({route: sizes[route] for route in plan.routes}, earlier)
    return RoutePool(expected, claims=((),) * len(plan.shards))


@dataclass(frozen=True)
class Driven:
    """What one submission took on its routes, as its supervisors saw it."""

    submission: int
    routes: str  # the route file's SHA-256
    seconds: Mapping[int, float]  # by route


_DRIVEN = LastSubmissions(storage_keys.DURATIONS, TypeAdapter(tuple[Driven, ...]))


def keep_durations(context: EvaluationContext, seen: list[Observations]) -> None:
    """Keep how long the routes took, for those who drive them next."""
    routes = sha256(context.settings.read_route_file())
    _DRIVEN.add(context.artifacts, Driven(context.submission.pk, routes, merged_seconds(seen)))

"""Routes: CARLA's route XML, and the short forms that people type."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

from evaluation.errors import InvalidConfiguration


@dataclass(frozen=True, order=True)
class RouteRun:
    """One repetition of one route: the unit that is driven, recorded and expected in a result."""

    route: int
    repetition: int = 0

    def __str__(self) -> str:
        return f"route {self.route}" + (f" repetition {self.repetition}" if self.repetition else "")


def parse_route_xml(text: str | bytes, source: str) -> tuple[int, ...]:
    """Read the route ids of a CARLA route file, in the file's order.

    Format: `<routes><route id="0" town="Town13">...</route>...</routes>`. Raises InvalidConfiguration, naming `source`.
    """
    return tuple(_elements(text, source)[1])


def _elements(text: str | bytes, source: str) -> tuple[ElementTree.Element, dict[int, ElementTree.Element]]:
    """The file's root and its routes by id, checked."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - the challenge host's own file, never a team's
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an unknown encoding
        raise InvalidConfiguration(f"{source} is not a route file", f"it is not XML: {error}") from error
    routes = list(root.iter("route"))
    ids = [element.get("id", "") for element in routes]
    for position, text_id in enumerate(ids):
        if not re.fullmatch(r"[0-9]{1,9}", text_id):
            raise InvalidConfiguration(f"{source}: route {position} has no numeric id", f"id is {text_id!r}")
    return root, dict(zip(_checked([int(text_id) for text_id in ids], source), routes, strict=True))


def route_lengths(text: str | bytes, source: str) -> dict[int, float]:
    """Metres between the points of each route of a CARLA route file; 0 for a route without points.

    1.0 has `<waypoint x= y= z=/>` in the route, 2.x `<position/>` in its `<waypoints>`. Raises as `parse_route_xml`.
    """
    return {route: _metres(element, source) for route, element in _elements(text, source)[1].items()}


def scenario_counts(text: str | bytes, source: str) -> dict[int, int]:
    """How many scenarios a 2.x route file has on each route; 1.0 keeps them in another file. As `parse_route_xml`."""
    return {route: len(element.findall("scenarios/scenario")) for route, element in _elements(text, source)[1].items()}


def routes_file(text: str | bytes, routes: Sequence[int], source: str) -> bytes:
    """The route file with these routes only, in this order. Raises InvalidConfiguration where one is missing."""
    root, elements = _elements(text, source)
    if missing := [route for route in routes if route not in elements]:
        raise InvalidConfiguration(f"{source} lacks routes", ", ".join(map(str, missing)))
    chosen = ElementTree.Element(root.tag, root.attrib)
    chosen.extend(elements[route] for route in routes)
    return bytes(ElementTree.tostring(chosen, encoding="utf-8", xml_declaration=True))


def _metres(route: ElementTree.Element, source: str) -> float:
    points = route.findall("waypoint") or route.findall("waypoints/position")
    try:
        places = [tuple(float(point.get(axis, "0")) for axis in "xyz") for point in points]
    except ValueError as error:
        raise InvalidConfiguration(f"{source}: route {route.get('id')} has a point that is none", str(error)) from error
    return sum(math.dist(a, b) for a, b in pairwise(places))


def parse_route_list(text: str) -> tuple[int, ...]:
    """Read `0-19`, `3,7,9` or a mix of both; raises InvalidConfiguration."""
    ids: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if not match:
            raise InvalidConfiguration(f"{text!r} is not a list of routes", f"{part!r} is neither 7 nor 0-19")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 100_000:
            raise InvalidConfiguration(f"{text!r} is not a list of routes", f"{part!r} is not a range")
        ids.extend(range(first, last + 1))
    return _checked(ids, f"the list {text!r}")


def format_route_list(routes: Sequence[int]) -> str:
    """Write routes in the evaluator's `--routes-subset` form, runs of three or more as ranges: `0-4,7`."""
    parts: list[str] = []
    start = 0
    for end in range(1, len(routes) + 1):
        if end < len(routes) and routes[end] == routes[end - 1] + 1:
            continue
        run = routes[start:end]
        parts.extend([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))
        start = end
    return ",".join(parts)


def format_runs(runs: Sequence[RouteRun]) -> str:
    """Name missing routes: `15-19`, or with repetitions `repetition 0: 15-19; repetition 1: 3,15-19`.

    Repetitions are driven in order, so the last one is among the missing wherever there are several.
    """
    last = max((run.repetition for run in runs), default=0)
    routes = [sorted(run.route for run in runs if run.repetition == each) for each in range(last + 1)]
    if last == 0:
        return format_route_list(routes[0])
    return "; ".join(f"repetition {each}: {format_route_list(ids)}" for each, ids in enumerate(routes) if ids)


def expand(routes: Sequence[int], repetitions: int) -> tuple[RouteRun, ...]:
    """Every repetition of every route, in the order in which a shard drives them."""
    return tuple(RouteRun(route, repetition) for route in routes for repetition in range(repetitions))


def _checked(ids: list[int], source: str) -> tuple[int, ...]:
    if not ids:
        raise InvalidConfiguration(f"{source} holds no routes")
    twice = sorted({route for route in ids if ids.count(route) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise InvalidConfiguration(f"{source} names routes twice", ", ".join(map(str, twice[:10])))
    return tuple(ids)

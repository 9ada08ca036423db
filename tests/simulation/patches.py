"""What the product takes from Python, from Prefect and from vendors, replaced while a simulated world runs.

Clocks (`time`, `datetime`), `os.urandom`, locks, the lease's threads, and the one function of each vendor's client
through which the product reaches it. Nothing else of the product is replaced.
"""

import datetime as datetime_module
import importlib
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cache
from typing import Any
from unittest import mock

from prefect.tasks import Task

from tests.simulation.hub import Hub
from tests.simulation.prefect_server import EPOCH
from tests.simulation.threads import SimulatedSchedule, SimulatedThreading

PRODUCT = (
    "evaluation", "aws_api", "evalai_api", "prefect_api", "shard_pod", "k8s_jobs", "compute_client", "blocks", "flows",
    "services", "embedded.evalai_standin",
)  # fmt: skip
_REAL_MONOTONIC, _REAL_TIME, _REAL_DATETIME = time.monotonic, time.time, datetime_module.datetime


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _REAL_DATETIME)


@cache
def _names_of(original: int) -> list[tuple[Any, str]]:
    """Where the product's modules have the object of that id."""
    return [
        (module, name)
        for module in modules_of(*PRODUCT)
        for name, found in list(vars(module).items())
        if id(found) == original
    ]


def modules_of(*rooms: str) -> list[Any]:
    """The modules of these packages that are loaded."""
    return [
        module
        for name, module in sorted(sys.modules.items())
        if any(name == room or name.startswith(f"{room}.") for room in rooms)
    ]


def _datetime(hub: Hub) -> type:
    class Datetime(_REAL_DATETIME, metaclass=_AnyDatetime):
        """datetime whose `now` is the wall clock of the machine that asks."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003 - always UTC, as everywhere in the product
            machine = hub.current
            return EPOCH + timedelta(seconds=machine.wall() if machine else hub.now)

    return Datetime


@contextmanager
def patched(hub: Hub, seed: int, replaced: dict[str, Any]) -> Iterator[None]:
    """`replaced`: "module.name" -> what stands for it; wherever a module of the product has imported it by name.

    A number only in its own module.
    """
    chosen = random.Random(f"{seed} urandom")
    sleep = hub.block
    with ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, value))

        def monotonic() -> float:
            return hub.current.monotonic() if hub.current else _REAL_MONOTONIC()

        def wall() -> float:
            return EPOCH.timestamp() + (hub.current.wall() if hub.current else hub.now)

        put(time, "monotonic", monotonic)
        put(time, "time", wall)
        put(time, "sleep", sleep)
        put(os, "urandom", chosen.randbytes)
        state = random.getstate()
        stack.callback(random.setstate, state)
        random.seed(f"{seed} random")
        _by_name(put, _REAL_MONOTONIC, monotonic)
        _by_name(put, _REAL_TIME, wall)
        _by_name(put, _REAL_DATETIME, _datetime(hub))
        put(importlib.import_module("evaluation.lifecycle.write_permit"), "threading", SimulatedThreading(hub))
        put(importlib.import_module("flows.lease"), "_schedule", SimulatedSchedule(hub))
        for address, value in replaced.items():
            module, name = address.rsplit(".", 1)
            if isinstance(value, int):
                put(importlib.import_module(module), name, value)
            else:
                _by_name(put, getattr(importlib.import_module(module), name), value)
        stack.enter_context(_quiet())
        yield


def _by_name(put: Callable[[Any, str, Any], None], original: Any, value: Any) -> None:
    for module, name in _names_of(id(original)):
        put(module, name, value)


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def task_engine(run: Callable[[Task[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Calls of Prefect's tasks go to `run`."""

    def call(self: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        return run(self, args, kwargs)

    with mock.patch.object(Task, "__call__", call):
        yield

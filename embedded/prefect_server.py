"""The embedded Prefect server: its environment, and an empty database that is made once instead of at every start.

`python -m embedded.prefect_server` makes the database ahead of the first start, as a part of the set-up.
"""

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import requests
from sqlalchemy.engine import URL

from deployments.settings import Settings, load_settings
from embedded.processes import Child, Processes
from evaluation.errors import ServiceUnavailable

# Where a schema change of Prefect's would need minutes on a slow disk, this is what to wait for it.
MIGRATION_SECONDS = 300


def prefect_environment(api_url: str, home: Path) -> dict[str, str]:
    """Variables for everything that talks to the embedded server, and for the server itself."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
        # A stack lives for hours at most.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "",
    }


def start_prefect(settings: Settings, processes: Processes, home: Path, url: str) -> Child:
    """Start the server on an empty, migrated database; returns when it answers."""
    home.mkdir(parents=True)
    shutil.copyfile(_empty_database(settings, processes), home / "prefect.db")
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    address = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": one_connection(home / "prefect.db")}
    child = processes.start("prefect-server", command, address)
    processes.wait_until(child, lambda: answers(f"{url}/api/health"), settings.start_seconds)
    return child


def one_connection(database: Path) -> str:
    """The database's address, so that the server opens it once and all requests take turns.

    Over several connections, a transaction that reads and then writes fails at once with "database is locked" when
    another has written in between, no timeout helps, and the clients come back 2 to 32 s later. Prefect keeps to one
    connection where the address says `:memory:`; SQLite ignores parameters that it does not know.
    """
    file = database.absolute().as_uri().replace("file://", "file:")
    address = URL.create("sqlite+aiosqlite", database=file, query={"uri": "true"})
    return f"{address.render_as_string()}&kept=:memory:"


def _empty_database(settings: Settings, processes: Processes) -> Path:
    """Migrating takes longer than all the rest of a start, so its result is kept for each version of Prefect."""
    kept = settings.cache.absolute() / f"prefect-{version('prefect')}.db"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{kept.name}.{os.getpid()}")
        address = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{new}"}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        processes.run("prefect-database", command, MIGRATION_SECONDS, address)
        new.replace(kept)
    return kept


def empty_database() -> Path:
    """The file of an empty, migrated database; made first if there is none yet, which takes a minute on a slow disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, **prefect_environment("", folder)}
        return _empty_database(load_settings(), Processes(environment, logs=folder, folder=folder, shards=folder))


def answers(url: str) -> bool:
    """Whether an HTTP server is there and not broken; it may well refuse an anonymous request."""
    status = _status(url)
    return status is not None and status < 500


def set_reconcile_interval(api_url: str, seconds: float) -> None:
    """Let the reconciler run more often than prefect.yaml says; raises ServiceUnavailable."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            deployment = session.get(f"{api_url}/deployments/name/reconcile/reconcile", timeout=20)
            deployment.raise_for_status()
            address = f"{api_url}/deployments/{deployment.json()['id']}/schedules"
            for schedule in deployment.json()["schedules"]:
                body = {"schedule": {"interval": seconds}, "slug": schedule["slug"]}
                session.patch(f"{address}/{schedule['id']}", json=body, timeout=20).raise_for_status()
    except requests.RequestException as error:
        raise ServiceUnavailable("The reconciler's schedule cannot be set", str(error)) from error


def exists(url: str) -> bool:
    """Whether the server has what the address names."""
    return _status(url) == 200


def _status(url: str) -> int | None:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=2).status_code
    except requests.RequestException:
        return None


if __name__ == "__main__":
    empty_database()

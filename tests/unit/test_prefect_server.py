"""The embedded Prefect server's database."""

import asyncio
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text

from embedded.prefect_server import one_connection


@pytest.mark.parametrize("folder", ["plain", "ä b%20 ?#&x=1"])
def test_all_requests_share_one_connection_to_the_file(tmp_path: Path, folder: str) -> None:
    database = tmp_path / folder / "prefect.db"
    database.parent.mkdir()

    size = asyncio.run(connections_of(one_connection(database)))

    assert size == 1
    assert database.read_bytes().startswith(b"SQLite format 3")


async def connections_of(address: str) -> int:
    """How many connections Prefect's own engine opens at most; it has written through one of them."""
    engine = await AioSqliteConfiguration(address).engine()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x INT)"))
    pool = engine.pool
    size: int = pool.size() + pool._max_overflow
    await engine.dispose()
    return size

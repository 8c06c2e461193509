"""Killed at any of its steps and started again, the client has every event counted once."""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aforo_client.spool import DEAD_LETTERS, SUFFIX
from tests.clients.conftest import Address
from tests.clients.node import run
from tests.clients.python import killed
from tests.clients.python.conftest import PACKAGE
from tests.conftest import NOW

pytestmark = pytest.mark.anyio


async def test_whenever_it_is_killed_every_event_counts_once(
    address: Address,
    shop: object,
    tmp_path: Path,
    counted: Callable[..., Awaitable[list[str]]],
) -> None:
    ended = await run(
        sys.executable,
        str(killed.__file__),
        address.url,
        address.key,
        str(tmp_path),
        NOW.isoformat(),
        environment={"PYTHONPATH": str(PACKAGE)},
        folder=tmp_path,
    )
    assert (ended.code, ended.failed) == (0, "")
    assert int(ended.said) > 20, "it was killed at hardly any step"

    acknowledged = (tmp_path / "acknowledged").read_text().split()
    wrong = {key for key in acknowledged if key.endswith("-0")}
    keys = await counted()
    assert len(keys) == len(set(keys)), "an event counts twice"
    assert set(acknowledged) - wrong <= set(keys), "an event that was kept does not count"
    assert not wrong & set(keys)
    lines = (tmp_path / "spool" / DEAD_LETTERS).read_text().splitlines()
    buried = {json.loads(line)["event"]["idempotencyKey"] for line in lines}
    assert wrong <= buried, "nobody learns of an event that was rejected"
    assert not list((tmp_path / "spool").glob(f"*{SUFFIX}"))

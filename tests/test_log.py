"""What may reach a log."""

import subprocess
import sys

import pytest
import sqlalchemy as sa

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime

SAY = """
import structlog
from aforo import process
process.sys.stderr.isatty = lambda: True
process.log_to_stderr()
structlog.get_logger("aforo").warning("refused", error="one\\ntwo \\x1b[2J three")
"""


def test_on_a_terminal_a_text_of_a_client_is_one_line_and_moves_nothing() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert said.stderr.count("\n") == 1
    assert "three" in said.stderr
    assert "\x1b[2J" not in said.stderr


@pytest.mark.anyio
async def test_a_failed_statement_does_not_tell_its_values(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    with pytest.raises(sa.exc.DBAPIError) as failed:
        async with runtime.scope(tenant_id) as scope:
            await scope.db.execute(sa.text("SELECT nothing, :who"), {"who": "ada@example.com"})
    assert "ada@example.com" not in str(failed.value)

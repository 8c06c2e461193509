"""What people do with their accounts stands in the audit log of the tenants that they may enter."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage import audit_chain
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.scope import Runtime
from tests.api import people
from tests.api.forms import GraphQL

pytestmark = pytest.mark.anyio

LOG = """
query ($action: String) {
  auditLog(action: $action) {
    edges {
      node { outcome reason actor { kind label address } changes { type before after } }
    }
  }
}
"""
ADA = "ada@acme.test"


async def told(graphql: GraphQL, action: str) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await graphql(LOG, action=action))["auditLog"]["edges"]]


async def test_sign_ins_refused_ones_and_sign_outs_are_recorded_with_who_and_from_where(
    runtime: Runtime, tenant_id: TenantId, graphql: GraphQL
) -> None:
    async with await people.member(runtime, tenant_id, ADA) as browser:
        (joined,) = await told(graphql, "acceptInvitation")
        assert joined["actor"]["label"] == ADA
        assert {"Member", "Invitation"} <= {each["type"] for each in joined["changes"]}
        assert "[secret]" in str(joined["changes"])
        wrong = await browser.sign_in(ADA, "a wrong password")
        assert wrong.status_code != 200
        await runtime.background.settle()
        assert (await browser.sign_in(ADA)).status_code == 200
        assert (await browser.post("/auth/sign-out")).status_code < 300
    sign_ins = await told(graphql, "signIn")
    assert [each["reason"] for each in sign_ins].count("WRONG_PASSWORD") == 1
    assert {each["actor"]["label"] for each in sign_ins} == {ADA}
    assert {each["actor"]["kind"] for each in sign_ins} == {"MEMBER"}
    assert all(each["actor"]["address"].startswith("2001:db8:") for each in sign_ins)
    (out,) = await told(graphql, "signOut")
    assert out["actor"]["label"] == ADA
    assert people.PASSWORD not in str([joined, sign_ins, out])


async def verify(
    runtime: Runtime, repository: Path, data_dir: Path, tenant_id: TenantId
) -> tuple[int, Any]:
    """Run the command; its exit code and answer."""
    settings = runtime.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from aforo.cli import main; main()", "audit", "verify", "--json"),
        *("--tenant", global_id("Tenant", tenant_id)),
        cwd=repository,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "AFORO_DATABASE_URL": settings.database_url,
            "AFORO_REDIS_URL": settings.redis_url,
            "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
            "AFORO_KEY_PEPPER": settings.key_pepper,
            "AFORO_DATA_DIR": str(data_dir),
        },
    )
    answer, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(answer)


async def test_the_command_verifies_the_chain_and_names_the_entry_that_was_changed(
    *,
    runtime: Runtime,
    engines: EmbeddedEngines,
    tenant_id: TenantId,
    graphql: GraphQL,
    repository: Path,
) -> None:
    data_dir = runtime.settings.data_dir
    await graphql('mutation { createProduct(input: {code: "p", name: "P"}) { __typename } }')
    await runtime.background.settle()
    await audit_chain.seal(runtime)
    await audit_chain.publish_all(runtime)
    code, (found,) = await verify(runtime, repository, data_dir, tenant_id)
    assert (code, found["fault"], found["waiting"]) == (0, None, 0)
    assert found["entries"] == 3  # The tenant was made, its key used for the first time, and this.
    owner = create_async_engine(engines.owner_database_url, poolclass=NullPool)
    async with owner.begin() as db:
        await db.execute(sa.text("ALTER TABLE audit_entry NO FORCE ROW LEVEL SECURITY"))
        changed = await db.scalar(
            sa.text(
                "UPDATE audit_entry SET actor_label = 'eve' "
                "WHERE tenant_id = :tenant AND position = 2 RETURNING id"
            ),
            {"tenant": tenant_id},
        )
        await db.execute(sa.text("ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY"))
    await owner.dispose()
    code, (found,) = await verify(runtime, repository, data_dir, tenant_id)
    assert (code, found["entries"], found["entry_id"]) == (1, 1, str(changed))
    assert "entry 2 was changed" in found["fault"]

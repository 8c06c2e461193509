"""A server that is killed at any point of a mutation with a key: sent again, one change."""

import asyncio
import os
import sys
from pathlib import Path

import httpx2
import pytest

from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL

pytestmark = pytest.mark.anyio

# Another process that serves on a free port, and says on which.
SERVE = """
import asyncio
from aforo import serve
from aforo.plugins import load_registry
from aforo.settings import from_environment
from aforo.storage.scope import open_runtime

async def main():
    listener = serve.bind("127.0.0.1", 0)
    runtime = open_runtime(from_environment(), load_registry())
    said = lambda: print(listener.getsockname()[1], flush=True)
    await serve.serve(runtime, listener, on_ready=said)

asyncio.run(main())
"""
QUERY = """
mutation ($code: String!) {
  createProduct(input: {code: $code, name: "P"}) { __typename ... on Product { id } }
}
"""
BODY = {"query": QUERY, "variables": {"code": "pro"}}
KILLED = -9


async def send_to_a_server_that_dies(
    runtime: Runtime, repository: Path, tenant: NewTenant, *, fail_point: str
) -> int:
    """Send the mutation to a process with a fail point; its exit code."""
    settings = runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        cwd=repository,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "AFORO_DATABASE_URL": settings.database_url,
            "AFORO_REDIS_URL": settings.redis_url,
            "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
            "AFORO_KEY_PEPPER": settings.key_pepper,
            "AFORO_FAILPOINTS": "1",
            "AFORO_FAILPOINT": fail_point,
        },
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            with pytest.raises(httpx2.TransportError):
                await client.post("/graphql", json=BODY, headers=keyed(tenant))
        return await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def keyed(tenant: NewTenant) -> dict[str, str]:
    return {"Authorization": f"Bearer {tenant.key.token}", "Idempotency-Key": "key-1"}


@pytest.mark.parametrize(
    ("fail_point", "was_done"),
    [
        ("idempotency.claimed", False),
        ("idempotency.kept", False),
        ("idempotency.committed", True),
    ],
)
async def test_killed_at_a_point_and_sent_again_it_is_one_change(
    *,
    runtime: Runtime,
    client: httpx2.AsyncClient,
    graphql: GraphQL,
    tenant: NewTenant,
    repository: Path,
    fail_point: str,
    was_done: bool,
) -> None:
    code = await send_to_a_server_that_dies(runtime, repository, tenant, fail_point=fail_point)
    assert code == KILLED
    answers = [await client.post("/graphql", json=BODY, headers=keyed(tenant)) for _ in range(2)]
    assert {answer.json()["data"]["createProduct"]["__typename"] for answer in answers} == {
        "Product"
    }
    assert answers[0].content == answers[1].content
    replayed = ["Idempotent-Replayed" in answer.headers for answer in answers]
    assert replayed == [was_done, True]
    products = await graphql("{ products { edges { node { code } } } }")
    assert products["products"]["edges"] == [{"node": {"code": "pro"}}]

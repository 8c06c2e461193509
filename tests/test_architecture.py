"""The house rules, held by a machine: what the code may look like, and what PostgreSQL enforces."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from aforo.api.schema import schema_text
from aforo.sdk import hooks
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.postgres import APP_ROLE, SYSTEM_ROLE
from aforo.storage.scope import Runtime

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def sources(*patterns: str) -> list[Path]:
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    built = {".venv", "build", "node_modules"}
    return sorted(
        path.relative_to(ROOT) for path in found if not built & set(path.relative_to(ROOT).parts)
    )


CORE = sources("aforo/**/*.py")
PLUGGED = [path for path in sources("plugins/*/**/*.py") if "tests" not in path.parts]
WRITTEN = sources(
    "aforo/**/*.py",
    "benchmarks/**/*.py",
    "clients/**/*.py",
    "migrations/**/*.py",
    "plugins/**/*.py",
    "tests/**/*.py",
)


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def test_there_is_code_to_check() -> None:
    assert Path("aforo/storage/scope.py") in CORE
    assert Path("plugins/aforo-example/aforo_example/__init__.py") in PLUGGED
    assert len(WRITTEN) > len(CORE) > 50


# What a file looks like.


def test_a_module_starts_with_one_sentence_that_says_what_it_is() -> None:
    sentences = {path: (ast.get_docstring(parsed(path)) or "").split("\n\n")[0] for path in WRITTEN}
    one = re.compile(r"\W?\w.*\.", re.DOTALL)
    assert {path: said for path, said in sentences.items() if not one.fullmatch(said)} == {}


def test_files_have_at_most_400_lines_of_at_most_100_characters() -> None:
    # A remark for a tool may stick out: it is not read.
    remark = re.compile(r"  # (type: ignore|noqa).*$")
    texts = {path: (ROOT / path).read_text(encoding="utf-8").splitlines() for path in WRITTEN}
    assert {path: len(lines) for path, lines in texts.items() if len(lines) > 400} == {}
    assert {
        path: line
        for path, lines in texts.items()
        for line in lines
        if len(remark.sub("", line)) > 100
    } == {}


def test_functions_have_at_most_70_lines() -> None:
    # The `upgrade` of a migration is a list of columns: to cut it up would hide the order.
    paths = [path for path in WRITTEN if not path.is_relative_to("migrations/versions")]
    lengths = {
        f"{path}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in paths
        for node in functions(parsed(path))
    }
    assert {name: length for name, length in lengths.items() if length > 70} == {}


def test_no_module_is_named_for_what_anything_could_be() -> None:
    names = {"service", "services", "repository", "utils", "helpers", "common"}
    assert [path for path in CORE + PLUGGED if path.stem in names] == []


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# What is promised outside.

HOOKS = sorted(name for name in dir(hooks) if name.startswith("register_"))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_page_of_the_manual_a_test_and_a_user(hook: str) -> None:
    pages = [file.read_text() for file in ROOT.glob("docs/plugins/*.md")]
    own = [page for page in pages if re.match(rf"# .*: `{hook}`\n", page)]
    assert len(own) == 1, "no page of the manual has it in its title"
    tests = sources("tests/**/test_*.py", "plugins/*/tests/test_*.py")
    assert any(
        hook in (ROOT / path).read_text() for path in tests if path.name != Path(__file__).name
    )
    assert any(hook in {node.name for node in functions(parsed(path))} for path in PLUGGED)


def test_the_schema_that_is_published_is_the_one_that_is_served() -> None:
    published = ROOT / "schema.graphql"
    assert published.exists(), "schema.graphql is missing: write it with `make schema`"
    assert published.read_text() == schema_text(), "out of date: write it with `make schema`"


# What PostgreSQL itself says.

NO_ROWS_OF_TENANTS = {"alembic_version": "alembic's own note of how far the schema has come"}
OF_ACCOUNTS = {"account": "a person is no tenant's: walled by the account of the transaction"}
OF_THE_SYSTEM_ALONE = {
    "sign_in_count": "numbers by bucket, of whom nobody can tell",
    "topic_place": "how far a topic has been read, which holds the events of all",
}

INDEXES_ACROSS_TENANTS = {
    "api_key_public_id_key": "a request names its tenant by its key",
    "account_pkey": "an account is no tenant's",
    "account_email_key": "who signs in names his account by an address",
    "member_by_account": "a person sees his memberships in every tenant",
    "member_session_by_account": "a changed password ends the person's sessions in every tenant",
    "sign_in_count_pkey": "sign-ins are counted before it is known whose they are",
    "portal_token_public_id_key": "a request names its tenant by its token",
    "topic_place_pkey": "a partition of the topic holds the events of every tenant",
    "job_due": "the relay looks for the work of every tenant",
    "job_done": "old jobs of every tenant are forgotten",
    "event_inbox_unsealed": "the sealer takes the events of every tenant in order",
    "segment_unconfirmed": "the sealer confirms the segments of every tenant in order",
    "audit_entry_unsealed": "the sealer chains the entries of every tenant in order",
    "idempotent_answer_age": "the worker forgets the old answers of every tenant",
}

KEYS_TO_ACCOUNTS = {"member.account_id_fkey", "member_session.account_id_fkey"}
"""An account is no tenant's, so a key to one cannot hold within a tenant."""

MORE_THAN_APPEND = {
    "account": "select insert update",  # To change the password.
    "member": "select insert update",  # To change the role.
    "invitation": "select insert update",  # To accept it.
    "identity_provider": "select insert update delete",
    "external_login": "select insert delete",  # Of a member who is removed.
    "restraint": "select insert update delete",
    "usage_span": "select insert delete",  # Of roll-ups that are made anew.
    "used_state": "select insert delete",  # Until it has expired anyway.
    "member_session": "select insert update delete",  # What is over is forgotten.
    "api_key": "select insert update",  # To revoke it.
    "portal_token": "select insert update delete",  # Those that expired go.
    "api_policy": "select insert update",  # Settings.
    "persisted_document": "select insert delete",  # Until no client uses it any more.
    "job": "select insert update",  # To mark it done in the transaction of its work.
    "customer": "select insert update",  # To lock it.
    "customer_alias": "select insert update",  # To end it.
    "subscription": "select insert update",
    "event_key": "select delete",  # To discard; besides, to release, a right to its state.
    "event_inbox": "select insert",  # To release what was quarantined.
    "ingest_batch": "select insert",  # What closes or reverts a backfill is an event that came.
    "backfill": "select insert update",  # To close and revert it.
    "event_conflict": "select",
    "quarantined_event": "select update",  # To release, discard and correct.
    "segment": "select",
    "bill_run": "select insert update",
    "invoice": "select insert update delete",  # A draft of a period that was not lived goes.
    "invoice_line": "select insert delete",  # A draft's are written anew.
    "invoice_tax": "select insert delete",
    "invoice_series": "select insert update",
    "wallet": "select insert update",  # To lock it.
    "webhook_endpoint": "select insert update delete",  # A deleted one, once its log is old.
    "webhook_delivery": "select insert update delete",  # Old ones are forgotten.
    "webhook_attempt": "select insert delete",
    "outbox": "select insert update delete",  # To mark what was told, and forget it in time.
    "idempotent_answer": "select insert update",  # To add the answer to the key that was claimed.
}
"""All others are append-only: what was once true of a price, a key or a balance stays readable."""

ACROSS_TENANTS = {
    "api_key": "select",  # To find the tenant of a request.
    "account": "select",  # To find whose address it is that signs in.
    "sign_in_count": "select insert update",  # To count before anybody is known.
    "portal_token": "select",
    "event_key": "select insert delete",  # To take keys, and forget those that are old enough.
    "event_inbox": "select insert update delete",  # To keep events, and seal them.
    "ingest_batch": "insert",  # What many tenants send at once is kept in one transaction.
    "event_conflict": "insert",
    "quarantined_event": "insert",
    "segment": "select insert update",
    "backfill": "select",  # To hold it open, for which there is a right to one of its columns.
    "topic_place": "select insert update",
    "job": "select insert update delete",  # To forget what was done long ago.
    "audit_entry": "select",  # Besides, to give an entry its place: a right to three columns.
    "idempotent_answer": "select delete",  # To forget those that are a day old.
    "webhook_delivery": "select update",  # To find what is due, and lease it.
}

TABLES = """
SELECT relname AS name, relrowsecurity AS walled, relforcerowsecurity AS forced,
       pg_get_userbyid(relowner) AS owner, relispartition AS part
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
 ORDER BY relname
"""


@pytest.fixture
async def catalogue(runtime: Runtime, engines: EmbeddedEngines) -> Any:
    """A connection of the schema's owner; the runtime is asked for because it migrates."""
    assert runtime.settings.database_url == engines.database_url
    engine = create_async_engine(engines.owner_database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def rows(connection: AsyncConnection, sql: str, **parameters: Any) -> list[Any]:
    return list(await connection.execute(sa.text(sql), parameters))


async def test_every_table_has_forced_row_security_and_a_policy(
    catalogue: AsyncConnection,
) -> None:
    tables = {row.name: row for row in await rows(catalogue, TABLES)}
    assert set(SQLModel.metadata.tables) <= set(tables)
    open_to_all = [name for name, row in tables.items() if not (row.walled and row.forced)]
    assert open_to_all == list(NO_ROWS_OF_TENANTS)
    policies = await rows(catalogue, "SELECT * FROM pg_policies")
    # A partition is reached through its whole; alone, without a policy, it shows nothing.
    whole = {name for name, row in tables.items() if not row.part} - set(NO_ROWS_OF_TENANTS)
    by_account = {
        row.tablename
        for row in policies
        if (row.qual or "").startswith("(id = (current_setting('aforo.account_id'")
        and row.roles == [APP_ROLE]
    }
    assert by_account == set(OF_ACCOUNTS)
    by_tenant = {
        row.tablename
        for row in policies
        if "aforo.tenant_id" in (row.qual or "") and row.roles == [APP_ROLE]
    }
    assert by_tenant == whole - set(OF_ACCOUNTS) - set(OF_THE_SYSTEM_ALONE)
    by_customer = {
        row.tablename
        for row in policies
        if row.policyname == "customer" and row.permissive == "RESTRICTIVE"
    }
    assert by_customer == by_tenant
    across = {row.tablename for row in policies if SYSTEM_ROLE in row.roles}
    assert across == set(ACROSS_TENANTS)


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE, "aforo"])
async def test_the_application_owns_nothing_and_cannot_get_past_the_walls(
    catalogue: AsyncConnection, role: str
) -> None:
    (told,) = await rows(catalogue, "SELECT * FROM pg_roles WHERE rolname = :role", role=role)
    assert not any((told.rolsuper, told.rolbypassrls, told.rolcreaterole, told.rolcreatedb))
    owned = await rows(
        catalogue,
        "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = :role "
        "UNION ALL SELECT proname FROM pg_proc WHERE pg_get_userbyid(proowner) = :role "
        "UNION ALL SELECT nspname FROM pg_namespace WHERE pg_get_userbyid(nspowner) = :role "
        "UNION ALL SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = :role",
        role=role,
    )
    assert owned == []
    (may,) = await rows(
        catalogue,
        "SELECT has_schema_privilege(:role, 'public', 'CREATE') AS in_schema, "
        "has_database_privilege(:role, current_database(), 'CREATE') AS in_database",
        role=role,
    )
    assert not may.in_schema
    assert not may.in_database
    more = await rows(
        catalogue,
        "SELECT relname, right_ FROM pg_class, "
        "unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS right_ "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        "AND has_table_privilege(:role, pg_class.oid, right_)",
        role=role,
    )
    assert more == []


async def test_the_application_may_do_to_a_table_what_it_needs_and_no_more(
    catalogue: AsyncConnection,
) -> None:
    tables = set(SQLModel.metadata.tables) - set(OF_THE_SYSTEM_ALONE)
    appended = dict.fromkeys(tables - set(MORE_THAN_APPEND), "select insert")
    assert await granted(catalogue, APP_ROLE) == MORE_THAN_APPEND | appended


async def test_the_system_role_may_do_its_work_and_no_more(catalogue: AsyncConnection) -> None:
    assert await granted(catalogue, SYSTEM_ROLE) == ACROSS_TENANTS


async def granted(connection: AsyncConnection, role: str) -> dict[str, str]:
    grants = await rows(
        connection,
        "SELECT table_name AS name, lower(string_agg(privilege_type, ' ' ORDER BY "
        "array_position(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], privilege_type::text))) "
        "AS granted FROM information_schema.role_table_grants "
        "WHERE table_schema = 'public' AND grantee = :role GROUP BY table_name",
        role=role,
    )
    return {row.name: row.granted for row in grants}


async def test_nothing_runs_with_the_rights_of_its_owner(catalogue: AsyncConnection) -> None:
    views = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
    assert await rows(catalogue, views + "AND relkind = 'm'") == []
    invoker = "AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)"
    assert await rows(catalogue, views + "AND relkind = 'v' " + invoker) == []
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
    assert await rows(catalogue, functions + "AND prosecdef") == []


async def test_every_index_starts_with_the_tenant(catalogue: AsyncConnection) -> None:
    first_columns = await rows(
        catalogue,
        "SELECT index.relname AS name, attname AS first FROM pg_index "
        "JOIN pg_class AS index ON index.oid = indexrelid "
        "JOIN pg_class AS owner ON owner.oid = indrelid "
        "LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] "
        "WHERE index.relnamespace = 'public'::regnamespace AND owner.relname <> 'alembic_version'",
    )
    others = {row.name for row in first_columns if row.first != "tenant_id"}
    assert len(first_columns) > 40
    assert others == set(INDEXES_ACROSS_TENANTS)


async def test_every_foreign_key_holds_within_one_tenant(catalogue: AsyncConnection) -> None:
    keys = await rows(
        catalogue,
        "SELECT conrelid::regclass || '.' || conname AS name, "
        "pg_get_constraintdef(oid) AS definition FROM pg_constraint "
        "WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
    )
    assert len(keys) > 20
    composite = re.compile(r"FOREIGN KEY \(tenant_id, \w+\) REFERENCES \w+\(tenant_id, id\)")
    others = {row.name for row in keys if not composite.fullmatch(row.definition)}
    assert others == KEYS_TO_ACCOUNTS

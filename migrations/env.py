"""Where alembic meets the tables: every package's models, and a connection given by the caller."""

from alembic import context
from sqlmodel import SQLModel

import aforo.actions.models
import aforo.billing.models
import aforo.catalog.models
import aforo.metering.models
import aforo.signals.models
import aforo.stages.models
import aforo.storage.audit
import aforo.storage.idempotency
import aforo.storage.jobs
import aforo.storage.outbox
import aforo.storage.secrets
import aforo.subscriptions.models
import aforo.tenants.models
import aforo.webhooks.models  # noqa: F401

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    transaction_per_migration=True,
    # The partitions of event_key are made by SQL; the tables know only the whole.
    include_name=lambda name, kind, _parents: (
        not (kind == "table" and str(name).startswith("event_key_"))
    ),
)
with context.begin_transaction():
    context.run_migrations()

"""Writes of policies and persisted documents."""

import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.callers.models import ApiPolicy, PersistedDocument
from aforo.callers.queries import Policy
from aforo.sdk.errors import Conflict, Invalid
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id

DOCUMENTS_MAX = 5_000
"""Of one tenant."""
UPLOAD_MAX = 500
"""In one upload: each is validated."""
TEXT_CHARACTERS_MAX = 50_000
PREFIX = "sha256:"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TooManyDocuments(Conflict):
    code = "TOO_MANY_PERSISTED_DOCUMENTS"


async def set_policy(scope: Scope, subject_id: UUID, policy: Policy, *, at_most: Policy) -> Policy:
    """Set what a key, or by its own id the whole tenant, may send.

    Rates are from 1 to those of `at_most`, the installation's. Raises `Invalid`.
    """
    _check_rate(policy.points_per_second, at_most.points_per_second, "pointsPerSecond")
    _check_rate(policy.events_per_second, at_most.events_per_second, "eventsPerSecond")
    row = await scope.db.scalar(sa.select(ApiPolicy).where(col(ApiPolicy.id) == subject_id))
    if row is None:
        row = ApiPolicy(id=subject_id)
        scope.db.add(row)
    row.points_per_second = policy.points_per_second
    row.events_per_second = policy.events_per_second
    row.only_persisted = policy.only_persisted
    await scope.db.flush()
    return policy


def checked_document_id(given: str, text: str | None = None) -> str:
    """An id as it is stored: a SHA-256 without its prefix, or what the client chose.

    What looks like a SHA-256 must be that of the text. Raises `Invalid`.
    """
    document_id = given.removeprefix(PREFIX)
    if not _ID.fullmatch(document_id):
        raise Invalid(
            "the id of a document is sha256: with its SHA-256, or 1 to 128 of A-Z a-z 0-9 . _ : -",
            code="BAD_DOCUMENT_ID",
        )
    is_hash = _SHA256.fullmatch(document_id) is not None
    if given.startswith(PREFIX) and not is_hash:
        raise Invalid("a SHA-256 is 64 lower-case hexadecimal digits", code="BAD_DOCUMENT_ID")
    if text is not None and is_hash and document_id != sha256(text.encode()).hexdigest():
        raise Invalid("the id is not the SHA-256 of the text", code="BAD_DOCUMENT_ID")
    return document_id


async def store_documents(scope: Scope, documents: Mapping[str, str]) -> int:
    """Store valid documents by checked ids; how many are new. One that is known by its id stays as
    it is: an id stands for one text for ever. Raises `Conflict`."""
    known = await _texts(scope, documents)
    for document_id, text in known.items():
        if documents[document_id] != text:
            raise Conflict(
                f"the id {document_id} stands for another document: remove that one first",
                code="DOCUMENT_ID_TAKEN",
            )
    new = {document_id: text for document_id, text in documents.items() if document_id not in known}
    # One after the other, so that two uploads cannot both find room for the last document.
    await scope.db.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock(scope.tenant_id))))
    count = await scope.db.scalar(sa.select(sa.func.count()).select_from(PersistedDocument)) or 0
    if count + len(new) > DOCUMENTS_MAX:
        raise TooManyDocuments(
            f"a tenant has at most {DOCUMENTS_MAX:,} persisted documents, and has {count:,}: "
            "remove some that no client uses any more"
        )
    if not new:
        return 0
    rows = [
        {"id": new_id(), "document_id": document_id, "text": text}
        for document_id, text in new.items()
    ]
    await scope.db.execute(insert(PersistedDocument).on_conflict_do_nothing(), rows)
    return len(new)


async def remove_documents(scope: Scope, document_ids: Collection[str]) -> int:
    """Remove persisted documents; how many there were of them."""
    removed = await scope.db.scalars(
        sa.delete(PersistedDocument)
        .where(col(PersistedDocument.document_id).in_(document_ids))
        .returning(col(PersistedDocument.id))
        .execution_options(synchronize_session=False)
    )
    return len(list(removed))


async def _texts(scope: Scope, document_ids: Collection[str]) -> dict[str, str]:
    query = sa.select(col(PersistedDocument.document_id), col(PersistedDocument.text))
    rows = await scope.db.execute(query.where(col(PersistedDocument.document_id).in_(document_ids)))
    return {row.document_id: row.text for row in rows}


def _check_rate(given: int | None, maximum: int | None, field: str) -> None:
    if given is not None and maximum is not None and not 1 <= given <= maximum:
        raise Invalid(f"a rate is 1 to {maximum:,} here, not {given:,}", field=field)


def _lock(tenant_id: UUID) -> int:
    digest = sha256(b"persisted documents" + tenant_id.bytes).digest()
    return int.from_bytes(digest[:8], "big", signed=True)

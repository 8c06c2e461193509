"""From a request to an operation that may run: document, rate, cost and permissions."""

import dataclasses

from graphql import GraphQLError, OperationType

from aforo.api.auth.requests import Refused, demand_all
from aforo.api.parts.context import actor_of
from aforo.api.protocol.documents import DocumentRefused, Documents, Operation, Request, first_field
from aforo.api.protocol.rates import policy_of, take_points
from aforo.callers import queries
from aforo.callers.commands import checked_document_id
from aforo.callers.queries import Policy
from aforo.sdk.errors import Invalid
from aforo.storage.lately import Lately
from aforo.storage.scope import Runtime
from aforo.tenants.queries import Caller

TEXTS_MAX = 500
"""Persisted documents that a process remembers: each has up to 50,000 characters."""
APOLLO_NOT_FOUND = "PersistedQueryNotFound"
"""Apollo's clients know this message, and send the document in full then."""


class Admission:
    """Decides on the operations of one schema, for every transport alike."""

    def __init__(self, runtime: Runtime, documents: Documents) -> None:
        self._runtime = runtime
        self._documents = documents
        self._texts = Lately(TEXTS_MAX)

    async def admit(
        self, asked: Request, caller: Caller, headers: dict[str, str]
    ) -> tuple[Request, Operation]:
        """The request with its document in full, and the operation to run; `headers` get what a
        transport that has any sends with the answer.

        Raises `DocumentRefused`; `Refused` with 403 without permission, with 429 for too much.
        """
        policy = await policy_of(self._runtime, caller)
        # One point before anything is parsed: who sends nonsense all the time is held up too.
        headers.update(await take_points(self._runtime, caller, policy, 1))
        asked = await self._in_full(asked, caller, policy)
        operation = self._documents.prepare(asked)
        if operation.cost > 1:
            rest = operation.cost - 1
            headers.update(await take_points(self._runtime, caller, policy, rest))
        try:
            demand_all(caller, operation.needs)
        except Refused as refused:
            self._note_refusal(operation, caller, refused)
            raise
        return asked, operation

    def _note_refusal(self, operation: Operation, caller: Caller, why: Refused) -> None:
        if operation.kind is not OperationType.MUTATION:
            return
        self._runtime.refusals.note(
            self._runtime,
            caller.tenant_id,
            actor_of(caller),
            action=first_field(operation.definition) or "mutation",
            reason=why.code,
        )

    async def _in_full(self, asked: Request, caller: Caller, policy: Policy) -> Request:
        """The request with the text of its document."""
        if asked.document_id is None:
            if policy.only_persisted:
                raise _refused(
                    "PERSISTED_DOCUMENT_REQUIRED",
                    f"{caller.named} takes persisted documents alone: send `documentId` instead of "
                    "`query`",
                )
            return asked
        if asked.query and not policy.only_persisted:
            return asked  # Apollo's clients send both after a miss; the hash was compared.
        text = await self._persisted(asked.document_id, caller)
        if text is None:
            message = "there is no persisted document of this id: upload it first"
            if asked.is_apollo:
                message = APOLLO_NOT_FOUND
            raise _refused("PERSISTED_DOCUMENT_NOT_FOUND", message)
        return dataclasses.replace(asked, query=text)

    async def _persisted(self, document_id: str, caller: Caller) -> str | None:
        runtime = self._runtime
        key, now = (caller.tenant_id, document_id), runtime.clock.now()
        known: str | None = self._texts.find(key, now)
        if known is not None:
            return known
        mark = self._texts.mark(now)
        async with runtime.scope(caller.tenant_id) as scope:
            text = await queries.persisted_text(scope, document_id)
        if text is not None:
            self._texts.keep(key, text, tenant_id=caller.tenant_id, mark=mark)
        return text


def document_id_of(given: object) -> str:
    """The stored form of a `documentId`. Raises `DocumentRefused`."""
    try:
        return checked_document_id(given if isinstance(given, str) else "")
    except Invalid as error:
        raise _refused(error.code, error.message) from error


def _refused(code: str, message: str) -> DocumentRefused:
    error = Invalid(message, code=code)
    return DocumentRefused(code, [GraphQLError(message, original_error=error)])

"""GraphQL of the persisted documents."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, Problem
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.protocol.documents import Documents
from aforo.api.uploads import UploadRefused, checked, store
from aforo.callers import commands, models, queries
from aforo.callers.commands import UPLOAD_MAX
from aforo.sdk.errors import Invalid
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission


@relay.fetched_by(queries.persisted_documents_by_id)
@strawberry.type(description="A document that clients name by its id instead of sending it.")
class PersistedDocument(Node):
    document_id: str = strawberry.field(
        description="What clients send as `documentId`: its SHA-256, or an id of your choice."
    )
    text: str = strawberry.field(description="The document.")
    created_at: datetime = strawberry.field(description="When it was uploaded.")

    @classmethod
    def from_row(cls, row: models.PersistedDocument) -> Self:
        return cls(
            id=relay.global_id("PersistedDocument", row.id),
            document_id=row.document_id,
            text=row.text,
            created_at=row.created_at,
        )


@strawberry.type(description="Why a document cannot be stored.")
class PersistedDocumentFault:
    document_id: str = strawberry.field(description="Its id, as it was given.")
    code: str = strawberry.field(description="A stable name of what is wrong.")
    message: str = strawberry.field(description="What is wrong, for a person.")


@strawberry.type(description="Documents are not valid, so none was stored: says all faults.")
class PersistedDocumentsProblem(Problem):
    faults: list[PersistedDocumentFault] = strawberry.field(description="At least one.")


@strawberry.type(description="What became of an upload.")
class PersistedDocumentsStored:
    stored: int = strawberry.field(description="How many documents are new.")
    known: int = strawberry.field(description="How many were there already.")


@strawberry.type(description="What became of a removal.")
class PersistedDocumentsRemoved:
    removed: int = strawberry.field(description="How many documents were removed.")


@strawberry.input(description="A document to persist.")
class PersistedDocumentInput:
    document_id: str = strawberry.field(
        description="Its SHA-256 in hexadecimal, with or without `sha256:`, or an id of up to 128 "
        "of A-Z a-z 0-9 . _ : -"
    )
    text: str = strawberry.field(description="The document, at most 50,000 characters.")


@strawberry.input(description="Documents to persist: all of them or none.")
class UploadPersistedDocumentsInput:
    documents: list[PersistedDocumentInput] = strawberry.field(description="1 to 500.")


@strawberry.input(description="Persisted documents to remove.")
class RemovePersistedDocumentsInput:
    document_ids: list[str] = strawberry.field(description="Their ids, 1 to 500.")


UploadPersistedDocumentsResult = Annotated[
    PersistedDocumentsStored | PersistedDocumentsProblem | InvalidProblem | ConflictProblem,
    strawberry.union(
        "UploadPersistedDocumentsResult", description="What was stored, or why nothing was."
    ),
]
RemovePersistedDocumentsResult = Annotated[
    PersistedDocumentsRemoved | InvalidProblem,
    strawberry.union(
        "RemovePersistedDocumentsResult", description="What was removed, or why nothing was."
    ),
]


@strawberry.type
class PersistedQuery:
    @field("The persisted documents.", needs=Permission.ACCESS_READ)
    async def persisted_documents(
        self,
        info: Info,
        *,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[PersistedDocument]:
        listing = queries.persisted_documents(order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=PersistedDocument.from_row
        )


@strawberry.type
class PersistedMutation:
    @mutation(
        "Persist documents, after each was validated against this schema.",
        needs=Permission.ACCESS_WRITE,
        counted="documents",
    )
    async def upload_persisted_documents(
        self, info: Info, input: UploadPersistedDocumentsInput
    ) -> UploadPersistedDocumentsResult:
        given = {each.document_id: each.text for each in input.documents}
        if len(given) < len(input.documents):
            raise Invalid("an id stands there twice", field="documents")
        production = info.context.runtime.settings.production
        try:
            documents = await checked(Documents(info.schema, introspection=not production), given)
        except UploadRefused as refused:
            return PersistedDocumentsProblem(
                code="INVALID_DOCUMENTS",
                message=f"{len(refused.faults)} faults in the documents: nothing was stored",
                field="documents",
                faults=[
                    PersistedDocumentFault(
                        document_id=fault.document_id, code=fault.code, message=fault.message
                    )
                    for fault in refused.faults
                ],
            )
        async with info.context.scope() as scope:
            stored = await store(scope, documents)
        return PersistedDocumentsStored(stored=stored, known=len(documents) - stored)

    @mutation(
        "Remove persisted documents; clients that send their ids are refused within a second.",
        needs=Permission.ACCESS_WRITE,
    )
    async def remove_persisted_documents(
        self, info: Info, input: RemovePersistedDocumentsInput
    ) -> RemovePersistedDocumentsResult:
        if not 1 <= len(input.document_ids) <= UPLOAD_MAX:
            raise Invalid(f"1 to {UPLOAD_MAX} ids are removed at once", field="documentIds")
        ids = [each.removeprefix(commands.PREFIX) for each in input.document_ids]
        async with info.context.scope() as scope:
            removed = await commands.remove_documents(scope, ids)
        return PersistedDocumentsRemoved(removed=removed)

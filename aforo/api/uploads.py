"""Uploads of persisted documents: each is checked as if it were run, and all faults are told."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aforo.api.protocol.documents import DocumentRefused, Documents
from aforo.api.protocol.errors import format_errors
from aforo.callers import commands
from aforo.callers.commands import TEXT_CHARACTERS_MAX, UPLOAD_MAX, checked_document_id
from aforo.sdk.errors import Invalid
from aforo.storage.scope import Scope


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one document cannot be stored."""

    document_id: str
    code: str
    message: str


class UploadRefused(Exception):
    """Nothing was stored: some documents are not valid."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


async def checked(documents: Documents, given: Mapping[str, str]) -> dict[str, str]:
    """The documents by the ids under which they are stored.

    Raises `UploadRefused` with every fault; `Invalid` for too many.
    """
    if not 1 <= len(given) <= UPLOAD_MAX:
        raise Invalid(
            f"an upload has 1 to {UPLOAD_MAX} documents, not {len(given):,}: send it in parts",
            field="documents",
        )
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for given_id, text in given.items():
        await asyncio.sleep(0)  # Other requests must not wait for all of them.
        try:
            found[_checked_one(documents, given_id, text)] = text
        except Invalid as error:
            faults.append(Fault(given_id[:200], error.code, error.message))
        except DocumentRefused as refused:
            faults += [
                Fault(given_id[:200], each["extensions"]["code"], each["message"])
                for each in format_errors(refused.errors, request_id="", code=refused.code)
            ]
    if faults:
        raise UploadRefused(faults)
    return found


async def store(scope: Scope, documents: Mapping[str, str]) -> int:
    """Store what `checked` gave; how many are new. Raises `Conflict`."""
    return await commands.store_documents(scope, documents)


def _checked_one(documents: Documents, given_id: str, text: str) -> str:
    document_id = checked_document_id(given_id, text)
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Invalid(
            f"a document has at most {TEXT_CHARACTERS_MAX:,} characters, not {len(text):,}",
            code="LIMIT_EXCEEDED",
        )
    documents.check(text)
    return document_id

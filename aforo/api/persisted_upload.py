"""`POST /v1/persisted-documents`: the file that a code generator writes, as it is."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.auth.callers import caller_of
from aforo.api.auth.requests import Refused, demand, demand_json, read_body
from aforo.api.parts.answers import Unreadable, decode_json, json_response
from aforo.api.parts.context import actor_of
from aforo.api.protocol.documents import Documents
from aforo.api.protocol.rates import policy_of, take_points
from aforo.api.uploads import UploadRefused, checked, store
from aforo.callers.commands import UPLOAD_MAX
from aforo.sdk.errors import Conflict, Invalid
from aforo.storage.scope import Runtime
from aforo.tenants.permissions import Permission

BODY_BYTES_MAX = 5 * 1024 * 1024


class PersistedUpload:
    """The route. Raises `Refused` and `Unavailable`, which the application words."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def post(self, request: Request) -> Response:
        runtime: Runtime = request.app.state.runtime
        credential = await caller_of(runtime, request)
        demand(credential.caller, {Permission.ACCESS_WRITE: request.url.path})
        demand_json(request)
        policy = await policy_of(runtime, credential.caller)
        await take_points(runtime, credential.caller, policy, 1)  # Before the body is read.
        given = _documents_in(await read_body(request, bytes_max=BODY_BYTES_MAX))
        # A point for each, as the mutation costs, before any is checked; too many are not checked.
        rest = min(len(given), UPLOAD_MAX) - 1
        headers = await take_points(runtime, credential.caller, policy, max(rest, 0))
        try:
            documents = await checked(self._documents, given)
            by = actor_of(credential.caller, operation="uploadPersistedDocuments")
            async with runtime.scope(credential.caller.tenant_id, by) as scope:
                stored = await store(scope, documents)
        except UploadRefused as refused:
            faults = [
                {"documentId": fault.document_id, "code": fault.code, "message": fault.message}
                for fault in refused.faults
            ]
            return json_response(
                {"faults": faults}, HTTPStatus.UNPROCESSABLE_ENTITY, headers=headers
            )
        except Invalid as error:
            raise Refused(422, error.code, error.message, headers, field=error.field) from error
        except Conflict as error:
            raise Refused(409, error.code, error.message, headers, field=error.field) from error
        return json_response({"stored": stored, "known": len(documents) - stored}, headers=headers)


def _documents_in(body: bytes) -> Mapping[str, str]:
    try:
        given = decode_json(body)
    except Unreadable as error:
        raise Refused(400, "BAD_REQUEST", f"the body cannot be read as JSON: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise Refused(400, "BAD_REQUEST", 'the body is one JSON object: {"<id>": "<document>", …}')
    return given

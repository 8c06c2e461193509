"""The schema as a file: served with its version, so that tools can keep up with it."""

from functools import cache
from hashlib import sha256
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.auth.requests import Refused, bearer_token, identify
from aforo.api.schema import schema_text
from aforo.storage.scope import Runtime
from aforo.tenants.queries import CallerKind

VERSION_HEADER = "Aforo-Schema-Version"
_DIGITS = 12


@cache
def schema_version() -> str:
    """The release, and a name for exactly this text: equal versions have equal schemas."""
    return f"{version('aforo')}+{sha256(schema_text().encode()).hexdigest()[:_DIGITS]}"


class SchemaFile:
    """`GET /schema.graphql`: in production for the tenants' own keys and members alone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def get(self, request: Request) -> Response:
        """The text, or 304 for who has it already. Raises `Refused`, `Unavailable`."""
        if self._runtime.settings.production:
            credential = await identify(self._runtime, bearer_token(request))
            if credential.caller.kind is CallerKind.PORTAL:
                raise Refused(403, "FORBIDDEN", "the schema is not shown to customers' users")
        tag = f'"{schema_version()}"'
        # Not `no-store`, as all else: it holds no data, and asking again is what the tag is for.
        headers = {
            "ETag": tag,
            VERSION_HEADER: schema_version(),
            "Cache-Control": "private, no-cache",
        }
        known = request.headers.get("if-none-match", "").split(",")
        if tag in [each.strip().removeprefix("W/") for each in known]:
            return Response(status_code=304, headers=headers)
        return Response(schema_text(), headers=headers, media_type="text/plain")

"""Which errors a client sees, and in what words; everything else is masked and logged."""

import re
from collections.abc import Sequence
from typing import Any

import structlog
from graphql import GraphQLError

from aforo.sdk.errors import AforoError, Invalid, PluginError, Unavailable

log = structlog.get_logger()

# The server must not answer a guess with the right name; graphql-core's own switch for this does
# not reach every rule.
_DID_YOU_MEAN = re.compile(r"\s*Did you mean [^?]*\?")

MESSAGE_CHARACTERS_MAX = 1_000
"""graphql-core repeats the values it dislikes in full, once for each of their faults."""

FormattedError = dict[str, Any]


class LimitExceeded(Invalid):
    """More of something is asked for than one operation may: says what, how much, and how much
    there may be. `advice` says what to do."""

    code = "LIMIT_EXCEEDED"

    def __init__(
        self, name: str, *, asked: int, maximum: int, advice: str = "ask in parts"
    ) -> None:
        super().__init__(f"{name}: {asked:,} asked for, at most {maximum:,} allowed; {advice}")
        self.limit = {"name": name, "asked": asked, "maximum": maximum}


def request_error(code: str, message: str, **extensions: object) -> FormattedError:
    """An error about the request itself, in the form of GraphQL's."""
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = f"{message[:MESSAGE_CHARACTERS_MAX]}…"
    return {"message": message, "extensions": {"code": code, **extensions}}


def format_aforo_error(error: AforoError) -> FormattedError:
    """An error that a caller can act on."""
    if isinstance(error, PluginError):
        log.error("a plugin broke its contract", error=error.message)
    extensions: dict[str, object] = {"field": error.field} if error.field else {}
    if isinstance(error, LimitExceeded):
        extensions["limit"] = error.limit
    return request_error(error.code, error.message, **extensions)


def format_errors(
    errors: Sequence[GraphQLError], *, request_id: str, code: str = "BAD_REQUEST"
) -> list[FormattedError]:
    """Errors as a client may see them, each with `extensions.code`.

    `code` is for graphql-core's own errors, which are about the request. An error that no caller
    can act on is a bug: its text goes to the log, and the client gets the request id to quote.
    """
    return [_formatted(error, request_id=request_id, code=code) for error in errors]


def retry_after_seconds(errors: Sequence[GraphQLError]) -> int | None:
    """How long to wait where an engine was down; None where none was."""
    causes = (cause_of(error) for error in errors)
    waits = [each.retry_after_seconds for each in causes if isinstance(each, Unavailable)]
    return max(waits, default=None)


def is_our_fault(error: BaseException) -> bool:
    """Whether the same request may well succeed when it is sent again."""
    cause = cause_of(error)
    if cause is None:
        return False
    return not isinstance(cause, AforoError) or isinstance(cause, Unavailable | PluginError)


def cause_of(error: BaseException) -> BaseException | None:
    """The exception behind a GraphQL error; None if it is graphql-core's own."""
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause


def _formatted(error: GraphQLError, *, request_id: str, code: str) -> FormattedError:
    cause = cause_of(error)
    if isinstance(cause, AforoError):
        formatted = format_aforo_error(cause)
    elif cause is None:
        formatted = request_error(code, _DID_YOU_MEAN.sub("", error.message))
    else:
        log.error(
            "a resolver failed",
            request_id=request_id,
            path=error.path,
            exc_info=(type(cause), cause, cause.__traceback__),
        )
        formatted = masked(request_id)
    if error.locations:
        formatted["locations"] = [
            {"line": place.line, "column": place.column} for place in error.locations
        ]
    if error.path:
        formatted["path"] = list(error.path)
    return formatted


def masked(request_id: str) -> FormattedError:
    """What a client learns of a bug."""
    message = f"Something failed on our side; it is logged as request {request_id}."
    return request_error("INTERNAL", message, requestId=request_id)

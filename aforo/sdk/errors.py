"""Errors that a caller can act on: each says what was wrong, where, and what to do."""


class AforoError(Exception):
    """The base of every error a caller can act on.

    `code` is a stable SCREAMING_SNAKE name, given by the class or for one raise; `field` is the
    dotted path of the input that is wrong, such as `lines.0.settings.tiers.1.upTo`.
    """

    code: str = "ERROR"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class Invalid(AforoError):
    """The input breaks a rule; the same input will never be accepted."""

    code = "INVALID"


class NotFound(AforoError):
    """What the input names does not exist for this caller."""

    code = "NOT_FOUND"


class Conflict(AforoError):
    """The input is well-formed but clashes with what is already there."""

    code = "CONFLICT"


class Forbidden(AforoError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"


class Unavailable(AforoError):
    """Something that is needed is down; the same request may succeed after the stated wait."""

    code = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: int = 5,
        code: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.retry_after_seconds = retry_after_seconds


class PluginError(AforoError):
    """A plugin breaks its contract, at start-up or when called; the message names it."""

    code = "PLUGIN_ERROR"

"""What goes wrong with an embedded engine."""

from aforo.sdk.errors import AforoError


class EngineError(AforoError):
    """An embedded engine cannot run; the sentence says which, why, and what to do."""

    code = "ENGINE"

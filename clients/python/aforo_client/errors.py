"""What a call can raise; nothing is ever raised in a thread of the client's own."""


class ClientError(Exception):
    """The base of them all."""


class InvalidEvent(ClientError, ValueError):
    """The event cannot be sent as it is; nothing of it was kept."""


class SpoolError(ClientError):
    """The spool cannot be used or written; the event was not kept."""


class SpoolFull(SpoolError):
    """The spool holds as much as it may; the event was not kept."""


class ClientClosed(ClientError):
    """The client was closed before; the event was not kept."""

"""How a client batches, keeps and sends; the defaults suit a service that is billed by usage."""

import ssl
from dataclasses import dataclass
from typing import Literal

Fsync = Literal["always", "interval", "never"]

EVENTS_MAX = 1_000
"""Of one batch, by Aforo's own limit."""
BODY_BYTES_MAX = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """Every limit of a client. Raises ValueError for what cannot be."""

    batch_events: int = 500
    """A batch is sent when so many events wait; 1 to 1,000."""
    batch_bytes: int = 1024 * 1024
    """Or when they have so many bytes before they are compressed; at most 10 MiB."""
    linger_seconds: float = 0.5
    """Or when the oldest has waited so long."""
    compress: bool = True
    """Send bodies as gzip; where the server says 415 they are sent as they are from then on."""
    timeout_seconds: float = 30.0
    """For the connection, for each step of a request, and for a whole answer."""
    backoff_seconds: float = 0.2
    """The first pause after a failure lasts up to so long; it doubles each time."""
    backoff_max_seconds: float = 30.0
    refused_seconds: float = 300.0
    """After 400, 401, 403 and the like, where only a person can help: the pause before one more
    try. `flush` tries at once."""
    fsync: Fsync = "interval"
    """When an event is safe from a power cut: before `track` returns, within `fsync_seconds`, or
    when the system sees fit. From the death of the process it is safe in every case."""
    fsync_seconds: float = 1.0
    spool_bytes_max: int = 256 * 1024 * 1024
    """Of the whole folder, over all processes."""
    segment_bytes: int = 4 * 1024 * 1024
    """Of one file of the spool; a process has one open."""
    full_wait_seconds: float = 0.0
    """How long `track` waits for room in a full spool before it raises `SpoolFull`."""
    adopt_seconds: float = 5.0
    """How often a process looks for what others left behind when they ended."""
    exit_seconds: float = 5.0
    """How long the end of the program waits for what is not sent yet; the rest stays kept."""
    ssl_context: ssl.SSLContext | None = None
    """For a certificate authority of one's own, or a certificate of the client."""

    def __post_init__(self) -> None:
        """Check each against what it can be."""
        if not 1 <= self.batch_events <= EVENTS_MAX:
            raise ValueError(f"batch_events is 1 to {EVENTS_MAX:,}, not {self.batch_events:,}")
        if not 1 <= self.batch_bytes <= BODY_BYTES_MAX:
            raise ValueError(f"batch_bytes is 1 to {BODY_BYTES_MAX:,}, not {self.batch_bytes:,}")
        if self.fsync not in {"always", "interval", "never"}:
            raise ValueError(f"fsync is 'always', 'interval' or 'never', not {self.fsync!r}")
        if not 1 <= self.segment_bytes <= self.spool_bytes_max:
            raise ValueError(
                f"segment_bytes is 1 to spool_bytes_max ({self.spool_bytes_max:,}), "
                f"not {self.segment_bytes:,}"
            )
        for name in ("timeout_seconds", "backoff_seconds", "fsync_seconds", "adopt_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above zero, not {getattr(self, name)}")

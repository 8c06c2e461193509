"""What a client has done since it was opened, as numbers for a monitor."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment's figures of one process. tracked + adopted = decided + waiting."""

    tracked: int = 0
    """Events that this process put into the spool."""
    adopted: int = 0
    """Events found in the spool that an earlier or another process had left."""
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    quarantined: int = 0
    refused: int = 0
    """Events that are too large for the server even alone."""
    damaged: int = 0
    """Lines of the spool that the disk did not give back as they were written."""
    waiting: int = 0
    """Events without a verdict yet."""
    waiting_bytes: int = 0
    requests: int = 0
    retries: int = 0
    """Requests that have to be made again."""
    splits: int = 0
    """Batches that were too large for the server."""
    bytes_sent: int = 0
    """Of the bodies, as they were sent."""
    callback_failures: int = 0
    last_success_at: datetime | None = None
    last_error: str | None = None
    """Why the last request failed; None after one that did not."""

    @property
    def decided(self) -> int:
        """Events whose verdict is known."""
        return (
            self.accepted
            + self.duplicates
            + self.conflicts
            + self.rejected
            + self.quarantined
            + self.refused
            + self.damaged
        )

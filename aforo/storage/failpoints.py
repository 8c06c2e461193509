"""Named points at which a test lets the process die, to see what a crash there leaves behind."""

import os
import signal

# Read once: a process that was not started for such a test cannot be talked into dying.
_IS_TEST = os.environ.get("AFORO_FAILPOINTS") == "1"


def reached(name: str) -> None:
    """Kill this process, with no chance to tidy up, if `AFORO_FAILPOINT` is this name."""
    if _IS_TEST and os.environ.get("AFORO_FAILPOINT") == name:
        os.kill(os.getpid(), signal.SIGKILL)

"""Named points at which a test lets the process die, or freeze, to see what that leaves behind."""

import os
import signal

FREEZES = "freeze:"
"""Before the name of a point in `AFORO_FAILPOINT`."""
# Read once: a process that was not started for such a test cannot be talked into dying.
_IS_TEST = os.environ.get("AFORO_FAILPOINTS") == "1"


def reached(name: str) -> None:
    """Kill this process, with no chance to tidy up, if `AFORO_FAILPOINT` is this name; or freeze
    it there, the first time, until it is told to go on."""
    if not _IS_TEST:
        return
    point = os.environ.get("AFORO_FAILPOINT")
    if point == name:
        os.kill(os.getpid(), signal.SIGKILL)
    elif point == FREEZES + name:
        del os.environ["AFORO_FAILPOINT"]
        os.kill(os.getpid(), signal.SIGSTOP)

"""The short program that becomes an engine: it ties the engine's life to ours, then steps aside.

It runs as `python -I -S launcher.py PARENT DEATH_SIGNAL USER GROUP COMMAND…` instead of as code
between fork and exec, where a process with threads may not do anything safely. USER and GROUP are
numbers, or `-` to stay who we are. Standard library only, no import of Aforo.
"""

import ctypes
import os
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
ARGUMENTS_BEFORE_COMMAND = 4


class CapabilityHeader(ctypes.Structure):
    """`cap_user_header_t` of capset(2)."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilityData(ctypes.Structure):
    """Half of `cap_user_data_t[2]` of capset(2)."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def main(arguments: Sequence[str]) -> None:
    """Become the command; come back only by an exception."""
    parent, death_signal, user, group = arguments[:ARGUMENTS_BEFORE_COMMAND]
    command = arguments[ARGUMENTS_BEFORE_COMMAND:]
    linux = sys.platform == "linux"
    if user != "-":
        capability = _keepable_capability() if linux else None
        if capability is not None:
            _prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
        if capability is not None:
            _keep(capability)
    if linux:
        # After the change of user, which the kernel answers by forgetting the signal.
        _prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent):
            sys.exit("the process that wanted this engine is gone")
    os.umask(0o077)
    os.execv(command[0], list(command))  # noqa: S606 (this program exists to do so)


def _keepable_capability() -> int | None:
    """What lets an unprivileged user walk through root's folders, such as a checkout in /root.

    Reading is enough; containers often have only the capability that also allows writing.
    """
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 (starts faster)
        permitted = next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm"))
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if permitted >> capability & 1:
            return capability
    return None


def _keep(capability: int) -> None:
    bit = 1 << capability
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    data = (CapabilityData * 2)(CapabilityData(bit, bit, bit), CapabilityData(0, 0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, first: int, second: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


if __name__ == "__main__":
    main(sys.argv[1:])

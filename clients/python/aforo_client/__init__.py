"""Sends usage events to Aforo: nothing lost in a restart, nothing counted twice."""

from aforo_client.aio import AsyncClient
from aforo_client.client import Client
from aforo_client.errors import ClientClosed, ClientError, InvalidEvent, SpoolError, SpoolFull
from aforo_client.options import Options
from aforo_client.stats import Stats
from aforo_client.verdicts import Verdict

__all__ = [
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ClientError",
    "InvalidEvent",
    "Options",
    "SpoolError",
    "SpoolFull",
    "Stats",
    "Verdict",
]

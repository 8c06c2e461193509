"""Finds the installed plugins, checks what they bring, and calls them inside a guard."""

from aforo.plugins.guard import FAILURES, TookTooLong, bounded, bounded_steps, told
from aforo.plugins.registry import (
    ENTRY_POINT_GROUP,
    Registry,
    Source,
    is_printable,
    load_registry,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "FAILURES",
    "Registry",
    "Source",
    "TookTooLong",
    "bounded",
    "bounded_steps",
    "is_printable",
    "load_registry",
    "told",
]

"""Aforo meters usage, prices it, bills it, watches the margin and acts on it."""

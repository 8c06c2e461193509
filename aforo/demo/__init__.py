"""The demo: an AI company with a month of usage, on embedded engines in one process."""

"""SIGNAL: detections from the tenant's own numbers, each fired once per period."""

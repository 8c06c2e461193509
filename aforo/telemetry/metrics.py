"""The metrics of a process. Labels name kinds of work, never tenants or customers: those are
without number, and theirs to know."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import Counter, Gauge, Histogram

_REQUEST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)

HTTP_REQUESTS = Histogram(
    "aforo_http_request_seconds",
    "From a request to the end of its answer; event streams are not in it.",
    ("route", "method", "status"),
    buckets=_REQUEST_SECONDS,
)
GRAPHQL_OPERATIONS = Histogram(
    "aforo_graphql_operation_seconds",
    "Execution of queries and mutations. The outcome is ok, refused, error or unavailable.",
    ("kind", "outcome"),
    buckets=_REQUEST_SECONDS,
)
STREAMS = Gauge("aforo_streams", "Subscriptions that are open in this process.")
EVENTS = Counter("aforo_events", "Usage events that were received, by verdict.", ("verdict",))
UNBALANCED_HOURS = Counter(
    "aforo_unbalanced_hours",
    "Hours of a tenant whose events were not accounted for when they were checked; 0 if all is "
    "well.",
)
UNBALANCED_METERS = Counter(
    "aforo_unbalanced_meters",
    "Meters of a tenant whose units were not accounted for when they were checked; 0 if all is "
    "well.",
)
TRANSACTIONS = Histogram(
    "aforo_transaction_seconds",
    "PostgreSQL transactions, by role and whether they were committed.",
    ("role", "outcome"),
    buckets=_REQUEST_SECONDS,
)
CLICKHOUSE_CALLS = Histogram(
    "aforo_clickhouse_seconds",
    "Calls of ClickHouse, the wait for a thread included.",
    ("outcome",),
    buckets=_REQUEST_SECONDS,
)
LIVE_MESSAGES_DROPPED = Counter(
    "aforo_live_messages_dropped", "Live messages that Redis did not take."
)
JOBS = Histogram(
    "aforo_job_seconds",
    "Background jobs. The outcome is done, retried, given_up or handed_back.",
    ("name", "outcome"),
    buckets=_JOB_SECONDS,
)
WEBHOOK_CALLS = Histogram(
    "aforo_webhook_call_seconds",
    "Calls of webhook endpoints. The outcome is delivered or failed.",
    ("outcome",),
    buckets=_REQUEST_SECONDS,
)
TALLIES = Counter(
    "aforo_quota_tallies",
    "Live quota tallies that were compared with the log. The outcome is equal or mended.",
    ("outcome",),
)
TALLY_DRIFT = Histogram(
    "aforo_quota_drift_ratio",
    "How far tallies were off, as a share of what the log has.",
    buckets=(0.0, 0.001, 0.01, 0.1, 1.0),
)
BACKLOG = Gauge(
    "aforo_backlog", "What waits: due jobs, unsealed events, unconfirmed segments.", ("queue",)
)
BACKLOG_AGE = Gauge(
    "aforo_backlog_age_seconds",
    "For how long the oldest of them has waited; of the topic, how far behind it is read.",
    ("queue",),
)


@contextmanager
def timed(histogram: Histogram, *labels: str) -> Iterator[None]:
    """Time what is done inside; the last label is its outcome, `ok` or `failed`."""
    begun = perf_counter()
    outcome = "failed"
    try:
        yield
        outcome = "ok"
    finally:
        histogram.labels(*labels, outcome).observe(perf_counter() - begun)

"""A cluster of brokers for tests: the one that Kafka's client has within itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

ANSWER_SECONDS = 30


@contextmanager
def cluster(brokers: int = 1) -> Iterator[str]:
    """Where it is, for as long as the block lasts."""
    holder = Producer(
        {"bootstrap.servers": "none", "test.mock.num.brokers": brokers, "log_level": 3}
    )
    found = holder.list_topics(timeout=ANSWER_SECONDS).brokers.values()
    yield ",".join(f"{each.host}:{each.port}" for each in found)
    del holder


def create_topic(brokers: str, name: str) -> None:
    """Make a topic of four partitions."""
    asking = Producer({"bootstrap.servers": brokers, "log_level": 3})
    assert len(asking.list_topics(name, timeout=ANSWER_SECONDS).topics[name].partitions) == 4

"""How Kafka's client is told what the settings say."""

import dataclasses
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from aforo.plugins import Registry
from aforo.settings import KAFKA_MECHANISMS, Settings
from aforo.storage import scope
from aforo.storage.scope import open_runtime
from aforo.storage.topic import _connection

WITHOUT = Settings(
    database_url="postgresql+asyncpg://aforo@/aforo?host=/nowhere",
    redis_url="redis://127.0.0.1:1/0",
    clickhouse_url="http://127.0.0.1:1/aforo",
    key_pepper="a pepper for tests, long enough to be one",
)
SETTINGS = dataclasses.replace(WITHOUT, kafka_brokers=("127.0.0.1:1",))


def test_without_more_the_brokers_are_spoken_to_in_the_clear() -> None:
    config = _connection(SETTINGS)
    assert config["security.protocol"] == "PLAINTEXT"
    assert Producer(config)


@pytest.mark.parametrize("mechanism", KAFKA_MECHANISMS)
def test_the_client_knows_every_way_of_signing_in_that_may_be_set(
    mechanism: str,
) -> None:
    signed_in = dataclasses.replace(
        SETTINGS,
        kafka_tls=True,
        kafka_username="aforo",
        kafka_password="a password",
        kafka_mechanism=mechanism,
    )
    config = _connection(signed_in)
    assert (config["security.protocol"], config["sasl.mechanisms"]) == ("SASL_SSL", mechanism)
    assert Producer(config)


def test_certificates_that_are_not_there_are_told_by_their_path() -> None:
    missing = dataclasses.replace(SETTINGS, kafka_tls=True, kafka_ca_file=Path("/nowhere/ca.pem"))
    with pytest.raises(KafkaException, match=r"ssl\.ca\.location"):
        Producer(_connection(missing))


async def test_events_go_through_a_topic_only_where_brokers_are_set() -> None:
    with_topic = open_runtime(SETTINGS, Registry())
    assert with_topic.topic is not None
    assert with_topic.topic.name == "aforo-events"
    await with_topic.close()
    assert scope._topic(WITHOUT) is None

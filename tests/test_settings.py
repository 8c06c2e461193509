"""The environment: every fault is told at once, in words, and no secret is."""

import pytest

from aforo.settings import SettingsError, from_environment

GOOD = {
    "AFORO_DATABASE_URL": "postgres://aforo:secret@db/aforo",
    "AFORO_REDIS_URL": "redis://cache:6379/0",
    "AFORO_CLICKHOUSE_URL": "http://log:8123/aforo",
    "AFORO_KEY_PEPPER": "p" * 32,
}


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as refused:
        from_environment(environment)
    return refused.value.message


def test_what_is_needed_is_enough() -> None:
    settings = from_environment(GOOD)
    assert settings.database_url == "postgresql+asyncpg://aforo:secret@db/aforo"
    assert (settings.port, settings.production) == (8080, False)


def test_all_faults_are_told_at_once() -> None:
    said = refusal(
        {
            "AFORO_DATABASE_URL": "mysql://someone:secret@host/aforo",
            "AFORO_CLICKHOUSE_URL": "http://log:8123/aforo",
            "AFORO_KEY_PEPPER": "short",
            "AFORO_PORT": "70000",
            "AFORO_PRODUCTION": "perhaps",
        }
    )
    assert said.splitlines() == [
        "5 settings are missing or wrong:",
        "  - AFORO_REDIS_URL must be set; "
        "for everything on embedded engines in one process run `aforo demo`",
        "  - AFORO_DATABASE_URL must begin with postgresql://",
        "  - AFORO_PRODUCTION must be true or false, not 'perhaps'",
        "  - AFORO_KEY_PEPPER must have at least 32 characters",
        "  - AFORO_PORT must be a port number, not 70000",
    ]


@pytest.mark.parametrize("port", ["", "-1", "8080x", "٨٠", "1" * 20])
def test_a_port_is_a_number(port: str) -> None:
    environment = {**GOOD, "AFORO_PORT": port}
    if not port:
        assert from_environment(environment).port == 8080  # An empty variable is none.
    else:
        assert refusal(environment).startswith("AFORO_PORT must be a whole number, not ")


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("POINTS_PER_SECOND", "10,000,000"),
        ("EVENTS_PER_SECOND", "10,000,000"),
        ("TENANT_RATE_FACTOR", "1,000"),
        ("DISK_PERCENT_MAX", "100"),
    ],
)
def test_a_rate_has_a_least_and_a_most(name: str, most: str) -> None:
    for value in (0, int(most.replace(",", "")) + 1):
        said = refusal({**GOOD, f"AFORO_{name}": str(value)})
        assert said == f"AFORO_{name} must be 1 to {most}, not {value}"
    assert from_environment({**GOOD, f"AFORO_{name}": most.replace(",", "")})


def test_other_origins_are_written_as_browsers_write_them() -> None:
    assert from_environment(GOOD).cors_origins == ()
    for good in ("https://app.example.com", "http://localhost:5173", "http://[::1]:8080", "*"):
        assert from_environment({**GOOD, "AFORO_CORS_ORIGINS": good}).cors_origins == (good,)
    two = {**GOOD, "AFORO_CORS_ORIGINS": "https://a.example, https://b.example:8443"}
    assert from_environment(two).cors_origins == ("https://a.example", "https://b.example:8443")


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://*.example.com",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "null",
        "https://a.example,",
        "https://a.example https://b.example",
        "https://münchen.example",
    ],
)
def test_what_no_browser_sends_as_its_origin_is_told(origin: str) -> None:
    said = refusal({**GOOD, "AFORO_CORS_ORIGINS": origin})
    assert said.startswith("AFORO_CORS_ORIGINS must be origins as browsers write them")
    assert repr(origin.removeprefix("https://a.example,")) in said


def test_other_origins_are_bounded_and_all_of_them_are_no_one_of_them() -> None:
    many = ",".join(f"https://a{number}.example" for number in range(101))
    assert refusal({**GOOD, "AFORO_CORS_ORIGINS": many}) == (
        "AFORO_CORS_ORIGINS takes at most 100 origins, not 101"
    )
    assert refusal({**GOOD, "AFORO_CORS_ORIGINS": "*,https://a.example"}) == (
        "AFORO_CORS_ORIGINS is `*` or origins, not both"
    )


def test_a_misspelt_variable_is_told() -> None:
    assert refusal({**GOOD, "AFORO_PRODUCTOIN": "1"}) == (
        "AFORO_PRODUCTOIN is no setting: AFORO_PRODUCTION is"
    )


def test_a_variable_of_somebody_else_is_left_alone() -> None:
    environment = {**GOOD, "AFORO_API_KEY": "afo_live_…", "AFORO_PORTS": "", "OTHER": "x"}
    assert from_environment(environment) == from_environment(GOOD)
    both = {**GOOD, "AFORO_PORT": "8081", "AFORO_PORTS": "9000"}
    assert from_environment(both).port == 8081


def test_no_secret_is_repeated() -> None:
    said = refusal(
        {
            **GOOD,
            "AFORO_DATABASE_URL": "secret",
            "AFORO_KEY_PEPPER": "also secret",
            "AFORO_MASTER_KEY": "secret too",
        }
    )
    assert "AFORO_MASTER_KEY must have at least 32 characters" in said
    assert "secret" not in said
    master_key = "secret" * 6
    settings = from_environment({**GOOD, "AFORO_MASTER_KEY": master_key})
    assert settings.master_key == master_key
    assert "secret" not in repr(settings)


def test_calls_to_loopback_are_off_unless_switched_on_and_never_on_in_production() -> None:
    assert not from_environment(GOOD).allow_loopback_calls
    switched = {**GOOD, "AFORO_ALLOW_LOOPBACK_CALLS": "1"}
    assert from_environment(switched).allow_loopback_calls
    assert refusal({**switched, "AFORO_PRODUCTION": "true"}) == (
        "AFORO_ALLOW_LOOPBACK_CALLS is for development: it must be false in production"
    )


def test_brokers_are_hosts_with_ports() -> None:
    assert from_environment(GOOD).kafka_brokers == ()
    good = {**GOOD, "AFORO_KAFKA_BROKERS": "kafka-1.example:9092, [::1]:9092"}
    assert from_environment(good).kafka_brokers == ("kafka-1.example:9092", "[::1]:9092")
    for wrong in ("kafka", "kafka:", "kafka://kafka:9092", "a:1,", "user@kafka:9092"):
        said = refusal({**GOOD, "AFORO_KAFKA_BROKERS": wrong})
        assert said.startswith("AFORO_KAFKA_BROKERS must be host:port")


@pytest.mark.parametrize("name", ["..", "a b", "ä", "x" * 250])
def test_a_topic_has_a_name_that_brokers_take(name: str) -> None:
    said = refusal({**GOOD, "AFORO_KAFKA_TOPIC": name})
    assert said == f"AFORO_KAFKA_TOPIC must be the name of a topic, not {name!r}"


def test_who_signs_in_to_brokers_does_so_as_a_whole_and_not_in_the_clear() -> None:
    name, password = {"AFORO_KAFKA_USERNAME": "aforo"}, {"AFORO_KAFKA_PASSWORD": "hush"}
    assert "set both or none" in refusal({**GOOD, **name})
    said = refusal({**GOOD, **password})
    assert "set both or none" in said
    assert "hush" not in said
    both = from_environment({**GOOD, **name, **password})
    assert both.kafka_mechanism == "SCRAM-SHA-512"
    assert "hush" not in repr(both)
    live = {**GOOD, **name, **password, "AFORO_PRODUCTION": "true"}
    assert refusal(live) == "AFORO_KAFKA_PASSWORD would travel unencrypted: set AFORO_KAFKA_TLS"
    assert from_environment({**live, "AFORO_KAFKA_TLS": "true", "AFORO_KAFKA_CA_FILE": "/ca.pem"})
    assert refusal({**GOOD, "AFORO_KAFKA_MECHANISM": "GSSAPI"}) == (
        "AFORO_KAFKA_MECHANISM must be one of SCRAM-SHA-512, SCRAM-SHA-256, PLAIN"
    )

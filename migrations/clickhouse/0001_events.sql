-- The event log as a projection of the sealed segments. The sort key ends in the key hash and the
-- version falls with the segment, so of two copies of an event the first segment's stays.
CREATE TABLE events
(
    tenant_id       UUID,
    segment_id      UInt64,
    position        UInt32,
    event_id        UUID,
    key_hash        FixedString(32),
    idempotency_key String,
    type            LowCardinality(String),
    customer_id     UUID,
    team_id         Nullable(UUID),
    agent_id        Nullable(UUID),
    customer_key_id Nullable(UUID),
    subscription_id UUID,
    product_id      UUID,
    occurred_at     DateTime64(6, 'UTC'),
    received_at     DateTime64(6, 'UTC'),
    properties      String,
    property_texts  Map(LowCardinality(String), String),
    cost            Nullable(Decimal(76, 30)),
    cost_currency   LowCardinality(String),
    cost_rates      Array(UUID),
    version         UInt64 MATERIALIZED 18446744073709551615 - segment_id
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (tenant_id, customer_id, type, toStartOfHour(occurred_at), key_hash)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Readers name a tenant and a watermark, or get an error.
CREATE VIEW events_of AS
SELECT *, reinterpretAsUInt64(substring(key_hash, 1, 8)) AS key_xor
FROM events FINAL
WHERE tenant_id = {tenant:UUID} AND segment_id <= {watermark:UInt64};

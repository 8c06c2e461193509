-- Who reads the newest segments alone skips what holds none of them.
ALTER TABLE events ADD INDEX IF NOT EXISTS segments segment_id TYPE minmax GRANULARITY 1;
ALTER TABLE events MATERIALIZE INDEX segments;

-- What each meter counted in a run of whole segments, a span, by quarters of an hour and by days of
-- UTC (level). Which spans count is said in PostgreSQL: rows of an attempt that was cut off are in
-- none of them. No row is ever changed, and no engine adds up what a view fed it.
CREATE TABLE usage_rollup
(
    tenant_id       UUID,
    meter_id        UUID,
    span_id         UInt64,
    level           UInt8,
    customer_id     UUID,
    bucket          DateTime('UTC'),
    team_id         Nullable(UUID),
    agent_id        Nullable(UUID),
    customer_key_id Nullable(UUID),
    subscription_id Nullable(UUID),
    dimensions      Array(LowCardinality(String)),
    events          UInt64,
    xor             UInt64,
    units           Decimal(76, 12),
    latest          Tuple(DateTime64(6, 'UTC'), UInt64, UInt32),
    texts           AggregateFunction(uniqExact, String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(bucket)
ORDER BY (tenant_id, meter_id, level, customer_id, bucket)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW usage_rollup_of AS
SELECT * FROM usage_rollup
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID});

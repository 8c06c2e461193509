-- Events that take the place of others, or void them. A void is nobody's and has no type.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS supersedes String,
    ADD COLUMN IF NOT EXISTS reason String;

-- What is superseded is found by its key alone.
ALTER TABLE events ADD INDEX IF NOT EXISTS keys key_hash TYPE bloom_filter(0.001) GRANULARITY 1;
ALTER TABLE events MATERIALIZE INDEX keys;

-- Each event that supersedes another, with the place of that one in the log, and whose it is. Made
-- by the sealer from the events of the segment, and counted, before the segment is confirmed.
CREATE TABLE event_correction
(
    tenant_id           UUID,
    segment_id          UInt64,
    position            UInt32,
    event_id            UUID,
    idempotency_key     String,
    is_void             Bool,
    reason              String,
    received_at         DateTime64(6, 'UTC'),
    superseded_id       UUID,
    superseded_segment  UInt64,
    superseded_position UInt32,
    customer_id         UUID,
    type                LowCardinality(String),
    occurred_at         DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant_id, segment_id, position)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What was superseded up to a watermark; of the one payer alone whose events those were.
CREATE VIEW corrections_of AS
SELECT * FROM event_correction FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64};

-- Every event of the log up to a watermark, whether it counts or not.
CREATE OR REPLACE VIEW log_of AS
SELECT *, reinterpretAsUInt64(substring(key_hash, 1, 8)) AS key_xor
FROM events FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64};

-- The events that count as of a watermark: neither voids nor what was superseded by then. Here, and
-- nowhere else, is decided what does.
CREATE OR REPLACE VIEW events_of AS
SELECT *, reinterpretAsUInt64(substring(key_hash, 1, 8)) AS key_xor
FROM events FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64}
  AND type != ''
  AND (segment_id, position) NOT IN (
    SELECT superseded_segment, superseded_position FROM event_correction
    WHERE tenant_id = {tenant:UUID} AND segment_id <= {watermark:UInt64}
  );

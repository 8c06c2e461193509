-- Which backfill an event belongs to. A key that a reverted backfill has given back is another
-- event's, so two rows may have it.
ALTER TABLE events
    ADD COLUMN IF NOT EXISTS backfill_id LowCardinality(String),
    MODIFY ORDER BY (tenant_id, customer_id, type, toStartOfHour(occurred_at), key_hash, backfill_id);

-- That a backfill is shown, or is not any more, is an event of the log too.
ALTER TABLE event_correction
    ADD COLUMN IF NOT EXISTS backfill_id LowCardinality(String),
    ADD COLUMN IF NOT EXISTS is_shown Bool;

CREATE OR REPLACE VIEW corrections_of AS
SELECT * FROM event_correction FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64};

CREATE OR REPLACE VIEW stored_events_of AS
SELECT segment_id, customer_id, type, occurred_at, key_hash, backfill_id
FROM events
WHERE tenant_id = {tenant:UUID};

CREATE OR REPLACE VIEW log_of AS
SELECT *, reinterpretAsUInt64(substring(key_hash, 1, 8)) AS key_xor,
  backfill_id = '' OR backfill_id IN (
    SELECT backfill_id FROM event_correction
    WHERE tenant_id = {tenant:UUID} AND segment_id <= {watermark:UInt64} AND backfill_id != ''
    GROUP BY backfill_id HAVING argMax(is_shown, (segment_id, position))
  ) AS is_shown
FROM events FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64};

-- The events that count as of a watermark: neither voids nor what was superseded by then, nor those
-- of a backfill that was not closed by then, or was reverted. Here, and nowhere else, is decided
-- what does.
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
  )
  AND (backfill_id = '' OR backfill_id IN (
    SELECT backfill_id FROM event_correction
    WHERE tenant_id = {tenant:UUID} AND segment_id <= {watermark:UInt64} AND backfill_id != ''
    GROUP BY backfill_id HAVING argMax(is_shown, (segment_id, position))
  ));

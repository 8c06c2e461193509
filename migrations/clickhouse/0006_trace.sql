-- How each event passed the first stages, in a few bytes that are nearly always the same ones; and
-- one event is found by its id.
ALTER TABLE events ADD COLUMN IF NOT EXISTS trace LowCardinality(String) DEFAULT '' AFTER cost_rates;
ALTER TABLE events ADD INDEX IF NOT EXISTS event_ids event_id TYPE bloom_filter GRANULARITY 1;
ALTER TABLE events MATERIALIZE INDEX event_ids;

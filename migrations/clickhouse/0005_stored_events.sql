-- Rows of events as they are stored, also where a later segment brings a key again: for the sealer,
-- which looks whether one does.
CREATE OR REPLACE VIEW stored_events_of AS
SELECT segment_id, customer_id, type, occurred_at, key_hash
FROM events
WHERE tenant_id = {tenant:UUID};

-- Which events each invoice line stands on. A bill run is one partition, replaced as a whole.
CREATE TABLE bill_run_event_index
(
    tenant_id       UUID,
    bill_run_id     UUID,
    invoice_line_id UUID,
    event_id        UUID,
    key_hash        FixedString(32),
    occurred_at     DateTime64(6, 'UTC')
)
ENGINE = MergeTree
PARTITION BY bill_run_id
ORDER BY (tenant_id, invoice_line_id, occurred_at, key_hash)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE bill_run_event_index_staging AS bill_run_event_index;

CREATE VIEW bill_run_event_index_of AS
SELECT * FROM bill_run_event_index
WHERE tenant_id = {tenant:UUID};

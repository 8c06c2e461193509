-- Readers also name the one customer whose events they are to see, all zeros for everyone's: a
-- portal's reads see no other's, whatever they ask for.
CREATE OR REPLACE VIEW events_of AS
SELECT *, reinterpretAsUInt64(substring(key_hash, 1, 8)) AS key_xor
FROM events FINAL
WHERE tenant_id = {tenant:UUID}
  AND ({payer:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR customer_id = {payer:UUID})
  AND segment_id <= {watermark:UInt64};

-- When a client's key ends, the key that it replaces and until when that one works too, and when
-- the client last called; NULL where there is none.
ALTER TABLE clients ADD COLUMN expires_at INTEGER;
ALTER TABLE clients ADD COLUMN previous_digest BLOB
  CHECK (previous_digest IS NULL OR length(previous_digest) = 32);
ALTER TABLE clients ADD COLUMN previous_until INTEGER;
ALTER TABLE clients ADD COLUMN last_used_at INTEGER;

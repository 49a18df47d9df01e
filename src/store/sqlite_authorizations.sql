-- Consents that were asked for and not given yet. `state` is the SHA-256 of what the
-- browser comes back with; the verifier is sealed as in src/store/sealed.rs. `number` tells the
-- oldest.
CREATE TABLE authorizations (
  number       INTEGER PRIMARY KEY,
  state        BLOB NOT NULL UNIQUE CHECK (length(state) = 32),
  tenant       TEXT NOT NULL,
  api_key      TEXT NOT NULL,
  redirect_uri TEXT NOT NULL,
  verifier     BLOB,
  return_to    TEXT,
  expires_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX authorizations_by_tenant ON authorizations (tenant);
CREATE INDEX authorizations_by_end ON authorizations (expires_at);

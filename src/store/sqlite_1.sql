-- Schema 1. Moments are milliseconds since 1970-01-01T00:00:00Z; tokens are sealed as in
-- src/store/sealed.rs.

-- What belongs to the file itself: `key_check` is sealed with the key of all tokens.
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- `version_floor`: the highest version of a removed grant. `pings`: a row to write to when asked
-- whether one can.
CREATE TABLE counters (
  name  TEXT NOT NULL PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('version_floor', 0), ('pings', 0);

-- Small and often written, so apart from the tokens.
CREATE TABLE tenants (
  tenant       TEXT NOT NULL PRIMARY KEY,
  api_key      TEXT NOT NULL,
  weight       INTEGER NOT NULL,
  paused       INTEGER NOT NULL CHECK (paused IN (0, 1)),
  last_used_at INTEGER
) STRICT, WITHOUT ROWID;

-- Large and written once a day; one row for each tenant. `dead_reason` is NULL while the grant is
-- ready.
CREATE TABLE tokens (
  tenant            TEXT NOT NULL PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
  version           INTEGER NOT NULL CHECK (version > 0),
  access            BLOB,
  access_expires_at INTEGER,
  refresh           BLOB NOT NULL,
  dead_reason       TEXT,
  last_refreshed_at INTEGER
) STRICT;

-- The journal: refreshes that were begun and whose end is not known.
CREATE TABLE refreshes (
  tenant   TEXT NOT NULL PRIMARY KEY REFERENCES tokens (tenant) ON DELETE CASCADE,
  begun_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE day_counts (
  api_key TEXT NOT NULL,
  day     INTEGER NOT NULL,
  total   INTEGER NOT NULL CHECK (total >= 0),
  PRIMARY KEY (api_key, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE paused_api_keys (
  api_key TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- `digest` is the SHA-256 of the client key.
CREATE TABLE clients (
  name        TEXT NOT NULL PRIMARY KEY,
  digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  all_tenants INTEGER NOT NULL CHECK (all_tenants IN (0, 1)),
  created_at  INTEGER NOT NULL
) STRICT;

-- A tenant named here need not exist yet.
CREATE TABLE client_tenants (
  client TEXT NOT NULL REFERENCES clients (name) ON DELETE CASCADE,
  tenant TEXT NOT NULL,
  PRIMARY KEY (client, tenant)
) STRICT, WITHOUT ROWID;

-- The one token of a sandbox that opens it by SSH.

CREATE TABLE ssh_access (
	sandbox_id      TEXT PRIMARY KEY,
	id              TEXT NOT NULL,
	organization_id TEXT NOT NULL,
	key_id          TEXT NOT NULL,
	hash            TEXT NOT NULL UNIQUE,
	created_at      BIGINT NOT NULL,
	expires_at      BIGINT NOT NULL
);

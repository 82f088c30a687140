-- The secrets of previews are derived from the server's secret and a
-- generation, so that none of them is in the database. No row means 0.
CREATE TABLE preview_keys (
	sandbox_id TEXT PRIMARY KEY,
	generation BIGINT NOT NULL
);

CREATE TABLE preview_links (
	hash            TEXT PRIMARY KEY,
	sandbox_id      TEXT NOT NULL,
	organization_id TEXT NOT NULL,
	port            BIGINT NOT NULL,
	expires_at      BIGINT NOT NULL
);

CREATE INDEX preview_links_sandbox ON preview_links (sandbox_id);
CREATE INDEX preview_links_expiry ON preview_links (expires_at);

-- What sandboxes were denied and operators decide about, and the time in which
-- a sandbox's network is open to learn what it needs.

ALTER TABLE sandboxes ADD COLUMN learning TEXT NOT NULL DEFAULT '';

CREATE TABLE access_requests (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	sandbox_id      TEXT NOT NULL,
	host            TEXT NOT NULL,
	address         TEXT NOT NULL,
	port            INTEGER NOT NULL,
	protocol        TEXT NOT NULL,
	rule            TEXT NOT NULL,
	reason          TEXT NOT NULL,
	call_id         TEXT NOT NULL,
	state           TEXT NOT NULL,
	denials         BIGINT NOT NULL,
	first_at        BIGINT NOT NULL,
	last_at         BIGINT NOT NULL,
	decided_at      BIGINT NOT NULL,
	decided_by      TEXT NOT NULL,
	until_at        BIGINT NOT NULL
);
CREATE INDEX access_requests_organization ON access_requests (organization_id, last_at);
CREATE INDEX access_requests_sandbox ON access_requests (sandbox_id);

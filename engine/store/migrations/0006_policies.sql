-- Policies by name, and what is under one: sandboxes, snapshots that were made
-- of such sandboxes, and keys that are bound to one.

CREATE TABLE policies (
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	description     TEXT NOT NULL,
	document        TEXT NOT NULL,
	revision        BIGINT NOT NULL,
	created_by      TEXT NOT NULL,
	updated_by      TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL,
	PRIMARY KEY (organization_id, name)
);

ALTER TABLE sandboxes ADD COLUMN policy TEXT NOT NULL DEFAULT '';

ALTER TABLE snapshots ADD COLUMN policy TEXT NOT NULL DEFAULT '';

ALTER TABLE api_keys ADD COLUMN policy TEXT NOT NULL DEFAULT '';

CREATE INDEX sandboxes_policy ON sandboxes (organization_id, policy);

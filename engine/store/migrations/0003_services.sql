-- What stands beside sandboxes: secrets, registries, warm pools, webhooks.
-- Sealed columns hold ciphertext; key_id names the key of the servers' key file.

-- Ids of secrets by environment variable.
ALTER TABLE sandboxes ADD COLUMN secrets TEXT NOT NULL DEFAULT '';

CREATE TABLE secrets (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	description     TEXT NOT NULL,
	hosts           TEXT NOT NULL,
	key_id          TEXT NOT NULL,
	sealed          TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE UNIQUE INDEX secrets_name ON secrets (organization_id, name);

CREATE TABLE registries (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	url             TEXT NOT NULL,
	username        TEXT NOT NULL,
	project         TEXT NOT NULL,
	key_id          TEXT NOT NULL,
	sealed          TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE UNIQUE INDEX registries_name ON registries (organization_id, name);

CREATE TABLE warm_pools (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	snapshot_id     TEXT NOT NULL,
	snapshot        TEXT NOT NULL,
	target          TEXT NOT NULL,
	size            BIGINT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE UNIQUE INDEX warm_pools_snapshot ON warm_pools (organization_id, snapshot_id, target);

-- Organizations that use webhooks.
CREATE TABLE webhook_apps (
	organization_id TEXT PRIMARY KEY,
	last_error      TEXT NOT NULL,
	retries         BIGINT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE TABLE webhook_endpoints (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	url             TEXT NOT NULL,
	description     TEXT NOT NULL,
	events          TEXT NOT NULL,
	disabled        BOOLEAN NOT NULL,
	reason          TEXT NOT NULL,
	key_id          TEXT NOT NULL,
	sealed          TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE INDEX webhook_endpoints_organization ON webhook_endpoints (organization_id, created_at);

CREATE TABLE webhook_messages (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	event           TEXT NOT NULL,
	payload         TEXT NOT NULL,
	created_at      BIGINT NOT NULL
);

CREATE INDEX webhook_messages_organization ON webhook_messages (organization_id, id);
CREATE INDEX webhook_messages_created ON webhook_messages (created_at);

-- One row for each endpoint that a message goes to.
CREATE TABLE webhook_deliveries (
	message_id      TEXT NOT NULL,
	endpoint_id     TEXT NOT NULL,
	organization_id TEXT NOT NULL,
	state           TEXT NOT NULL,
	tries           BIGINT NOT NULL,
	next_at         BIGINT NOT NULL,
	PRIMARY KEY (message_id, endpoint_id)
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (state, next_at);
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id);

CREATE TABLE webhook_attempts (
	id          TEXT PRIMARY KEY,
	message_id  TEXT NOT NULL,
	endpoint_id TEXT NOT NULL,
	at          BIGINT NOT NULL,
	took        BIGINT NOT NULL,
	status      BIGINT NOT NULL,
	error       TEXT NOT NULL
);

CREATE INDEX webhook_attempts_message ON webhook_attempts (message_id, id);

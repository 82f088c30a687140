-- One dialect for SQLite and Postgres. Times are nanoseconds since 1970 in UTC,
-- 0 means none. Maps and lists are JSON text.

CREATE TABLE organizations (
	id         TEXT PRIMARY KEY,
	name       TEXT NOT NULL,
	created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	hash            TEXT NOT NULL UNIQUE,
	prefix          TEXT NOT NULL,
	permissions     TEXT NOT NULL,
	admin           BOOLEAN NOT NULL,
	created_at      BIGINT NOT NULL,
	expires_at      BIGINT NOT NULL,
	last_used_at    BIGINT NOT NULL
);

CREATE UNIQUE INDEX api_keys_name ON api_keys (organization_id, name);

CREATE TABLE sandboxes (
	id                 TEXT PRIMARY KEY,
	version            BIGINT NOT NULL,
	organization_id    TEXT NOT NULL,
	name               TEXT NOT NULL,
	class              TEXT NOT NULL,
	state              TEXT NOT NULL,
	desired            TEXT NOT NULL,
	incarnation        BIGINT NOT NULL,
	runner             TEXT NOT NULL,
	target             TEXT NOT NULL,
	snapshot           TEXT NOT NULL,
	image              TEXT NOT NULL,
	image_digest       TEXT NOT NULL,
	os_user            TEXT NOT NULL,
	work_dir           TEXT NOT NULL,
	entrypoint         TEXT NOT NULL,
	fork_disk          TEXT NOT NULL,
	env                TEXT NOT NULL,
	labels             TEXT NOT NULL,
	public             BOOLEAN NOT NULL,
	cpu                DOUBLE PRECISION NOT NULL,
	memory_mib         BIGINT NOT NULL,
	disk_mib           BIGINT NOT NULL,
	gpu                BIGINT NOT NULL,
	pids               BIGINT NOT NULL,
	auto_stop          BIGINT NOT NULL,
	auto_archive       BIGINT NOT NULL,
	auto_delete        BIGINT NOT NULL,
	ttl                BIGINT NOT NULL,
	network            TEXT NOT NULL,
	error              TEXT NOT NULL,
	recoverable        BOOLEAN NOT NULL,
	parent             TEXT NOT NULL,
	created_at         BIGINT NOT NULL,
	updated_at         BIGINT NOT NULL,
	last_active_at     BIGINT NOT NULL,
	stopped_at         BIGINT NOT NULL
);

-- A destroyed sandbox gives its name back.
CREATE UNIQUE INDEX sandboxes_name ON sandboxes (organization_id, name) WHERE state <> 'destroyed';
CREATE INDEX sandboxes_active ON sandboxes (organization_id, last_active_at, id);
CREATE INDEX sandboxes_runner ON sandboxes (runner);

CREATE TABLE snapshots (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	general         BOOLEAN NOT NULL,
	state           TEXT NOT NULL,
	image           TEXT NOT NULL,
	image_digest    TEXT NOT NULL,
	disk            TEXT NOT NULL,
	runner          TEXT NOT NULL,
	os_user         TEXT NOT NULL,
	work_dir        TEXT NOT NULL,
	env             TEXT NOT NULL,
	entrypoint      TEXT NOT NULL,
	cpu             DOUBLE PRECISION NOT NULL,
	memory_mib      BIGINT NOT NULL,
	disk_mib        BIGINT NOT NULL,
	gpu             BIGINT NOT NULL,
	pids            BIGINT NOT NULL,
	size_bytes      BIGINT NOT NULL,
	source_sandbox  TEXT NOT NULL,
	error           TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL,
	last_used_at    BIGINT NOT NULL
);

CREATE UNIQUE INDEX snapshots_name ON snapshots (organization_id, name);
CREATE UNIQUE INDEX snapshots_general ON snapshots (name) WHERE general;

CREATE TABLE idempotency (
	organization_id TEXT NOT NULL,
	key             TEXT NOT NULL,
	fingerprint     TEXT NOT NULL,
	object          TEXT NOT NULL,
	expires_at      BIGINT NOT NULL,
	PRIMARY KEY (organization_id, key)
);

CREATE TABLE audit (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	at              BIGINT NOT NULL,
	actor           TEXT NOT NULL,
	verb            TEXT NOT NULL,
	object          TEXT NOT NULL,
	outcome         TEXT NOT NULL,
	detail          TEXT NOT NULL
);

CREATE INDEX audit_organization ON audit (organization_id, id);

CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

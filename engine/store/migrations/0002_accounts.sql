-- Users, members, roles, invitations, quotas, and an audit trail that says who
-- and from where. Nothing wrote into the audit table of before.

CREATE TABLE users (
	id             TEXT PRIMARY KEY,
	name           TEXT NOT NULL,
	email          TEXT NOT NULL,
	email_verified BOOLEAN NOT NULL,
	admin          BOOLEAN NOT NULL,
	created_at     BIGINT NOT NULL
);

CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE email <> '';

ALTER TABLE organizations ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN personal BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE organizations ADD COLUMN default_region TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN limited_egress BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE organizations ADD COLUMN preview_warning BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE organizations ADD COLUMN suspension TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN quota TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;

CREATE TABLE members (
	organization_id TEXT NOT NULL,
	user_id         TEXT NOT NULL,
	role            TEXT NOT NULL,
	roles           TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL,
	PRIMARY KEY (organization_id, user_id)
);

CREATE INDEX members_user ON members (user_id);

CREATE TABLE roles (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	name            TEXT NOT NULL,
	description     TEXT NOT NULL,
	permissions     TEXT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE UNIQUE INDEX roles_name ON roles (organization_id, name);

CREATE TABLE invitations (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	email           TEXT NOT NULL,
	invited_by      TEXT NOT NULL,
	role            TEXT NOT NULL,
	roles           TEXT NOT NULL,
	status          TEXT NOT NULL,
	expires_at      BIGINT NOT NULL,
	created_at      BIGINT NOT NULL,
	updated_at      BIGINT NOT NULL
);

CREATE UNIQUE INDEX invitations_pending ON invitations (organization_id, lower(email)) WHERE status = 'pending';
CREATE INDEX invitations_email ON invitations (lower(email));

CREATE TABLE region_quotas (
	organization_id TEXT NOT NULL,
	region          TEXT NOT NULL,
	class           TEXT NOT NULL,
	limits          TEXT NOT NULL,
	PRIMARY KEY (organization_id, region, class)
);

-- A key without a list of permissions could do everything until now.
ALTER TABLE api_keys ADD COLUMN user_id TEXT NOT NULL DEFAULT '00000000-0000-4000-8000-000000000002';
ALTER TABLE api_keys ADD COLUMN suffix TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN unrestricted BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE api_keys SET unrestricted = TRUE WHERE permissions = '';
DROP INDEX api_keys_name;
CREATE UNIQUE INDEX api_keys_name ON api_keys (organization_id, user_id, name);

DROP TABLE audit;

CREATE TABLE audit (
	id              TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	at              BIGINT NOT NULL,
	actor_id        TEXT NOT NULL,
	actor_email     TEXT NOT NULL,
	key_prefix      TEXT NOT NULL,
	key_suffix      TEXT NOT NULL,
	action          TEXT NOT NULL,
	target_type     TEXT NOT NULL,
	target_id       TEXT NOT NULL,
	status          BIGINT NOT NULL,
	error           TEXT NOT NULL,
	ip              TEXT NOT NULL,
	user_agent      TEXT NOT NULL,
	source          TEXT NOT NULL,
	metadata        TEXT NOT NULL
);

CREATE INDEX audit_organization ON audit (organization_id, id);

-- What a key reaches beside its permissions: which tools, which sandboxes,
-- and whether it only reads. Empty narrows nothing.

ALTER TABLE api_keys ADD COLUMN scope TEXT NOT NULL DEFAULT '';

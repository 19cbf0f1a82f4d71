-- Credentials of other issuers: what names them there, what their revocation needs, and when it is tried again.
ALTER TABLE leases ADD COLUMN handle TEXT;
ALTER TABLE leases ADD COLUMN sealed BLOB;
ALTER TABLE leases ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN next_try INTEGER NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN problem TEXT;
DROP INDEX leases_open;
CREATE INDEX leases_open ON leases (instance) WHERE state IN ('intended', 'minted', 'revoking', 'lapsing');
CREATE INDEX leases_created ON leases (created_at);
ALTER TABLE leases ADD COLUMN lapses INTEGER NOT NULL DEFAULT 1;

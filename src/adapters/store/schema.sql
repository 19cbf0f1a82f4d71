CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    call BLOB,
    subject TEXT,
    data TEXT NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject) WHERE subject IS NOT NULL;
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    key BLOB NOT NULL,
    state TEXT NOT NULL,
    instance TEXT,
    runs_out INTEGER,
    findable_until INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    body TEXT NOT NULL,
    answer BLOB
) STRICT;
CREATE INDEX approvals_touched ON approvals (touched);
CREATE UNIQUE INDEX approvals_open ON approvals (key) WHERE state IN ('pending', 'approved', 'redeemed', 'dispatched');
CREATE INDEX approvals_key ON approvals (key, findable_until);
CREATE INDEX approvals_state ON approvals (state, asked_at);
CREATE INDEX approvals_due ON approvals (runs_out) WHERE runs_out IS NOT NULL;
CREATE TABLE targets (
    server TEXT NOT NULL,
    caller TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (server, caller, kind, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    digest BLOB NOT NULL,
    pinned_at INTEGER NOT NULL,
    PRIMARY KEY (server, tool)
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    call BLOB NOT NULL,
    instance TEXT NOT NULL,
    audience TEXT NOT NULL,
    scope TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_open ON leases (instance) WHERE state IN ('intended', 'minted');
CREATE TABLE spools (
    instance TEXT PRIMARY KEY,
    moved INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    pkcs8 BLOB NOT NULL
) STRICT;
CREATE TABLE logins (
    token BLOB PRIMARY KEY,
    approver TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE sessions (
    token BLOB PRIMARY KEY,
    approver TEXT NOT NULL,
    csrf TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

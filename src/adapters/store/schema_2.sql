CREATE TABLE outbox (
    channel TEXT NOT NULL,
    approval TEXT NOT NULL,
    mark INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (channel, approval)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_at ON outbox (channel, at);
CREATE TABLE posted (
    nonce TEXT PRIMARY KEY,
    approval TEXT NOT NULL,
    recipient TEXT NOT NULL,
    place TEXT NOT NULL,
    message TEXT,
    version INTEGER NOT NULL,
    step INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX posted_approval ON posted (approval);
CREATE INDEX posted_recipient ON posted (recipient) WHERE step < 2;
CREATE TABLE clicks (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    body BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE allowances (
    id TEXT PRIMARY KEY,
    key BLOB NOT NULL,
    uses INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX allowances_key ON allowances (key) WHERE uses > 0;
CREATE TABLE codes (
    approver TEXT PRIMARY KEY,
    step INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_pending ON approvals (body ->> '$.request.caller.name') WHERE state = 'pending';
CREATE INDEX approvals_last ON approvals (
    body ->> '$.request.binding.server', body ->> '$.request.tool', body ->> '$.request.caller.name', asked_at
) WHERE state = 'completed';
CREATE INDEX leases_subject ON leases (subject);

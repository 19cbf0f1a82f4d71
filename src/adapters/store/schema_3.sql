CREATE TABLE spent (
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    caller TEXT NOT NULL,
    place TEXT NOT NULL,
    at INTEGER NOT NULL,
    amount TEXT NOT NULL
) STRICT;
CREATE INDEX spent_by ON spent (server, tool, caller, place, at);

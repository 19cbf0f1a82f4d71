-- The gateway's own sign-in at servers that ask for one: tokens, sealed.
CREATE TABLE sign_ins (
    upstream TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

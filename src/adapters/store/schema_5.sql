-- Calls that their clients follow as tasks: what was asked, sealed, so that it can run after a restart.
ALTER TABLE approvals ADD COLUMN task BLOB;

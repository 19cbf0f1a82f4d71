-- Until when answers, and calls that are followed as tasks, are kept for their callers.
ALTER TABLE approvals ADD COLUMN kept_until INTEGER NOT NULL DEFAULT 0;
UPDATE approvals SET kept_until = CASE WHEN findable_until > asked_at + 604800000 THEN asked_at + 604800000 ELSE findable_until + 86400000 END;
CREATE INDEX approvals_kept ON approvals (kept_until) WHERE answer IS NOT NULL OR task IS NOT NULL;

-- +goose NO TRANSACTION
-- +goose Up

-- Notifications follow all messages by time. An ordinary index would cost every
-- message, and its last page be where all writers meet; BRIN costs next to
-- nothing, since messages lie in the order of their time, and are never deleted.
-- What is newer than its last summary is read as a whole: it is written by
-- itself, soon after a range of pages is full.
--
-- CONCURRENTLY, so that writers of the release before are not held up; a run
-- that was broken off leaves an invalid index behind, hence the DROP. It waits
-- for all transactions that began before it, a backup's among them, and nobody
-- waits behind it: so it may take as long as they do.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS messages_by_time;
CREATE INDEX CONCURRENTLY messages_by_time ON messages USING brin (sent_at) WITH (autosummarize = on);
SET lock_timeout = '5s';

-- The one process that notifies, and how far it has come.
CREATE TABLE IF NOT EXISTS notifier (
    one               boolean     PRIMARY KEY DEFAULT true CHECK (one),
    -- A lease, not a row lock: a transaction that stays open while others are
    -- told would hold back the event log, whose readers wait for every older
    -- transaction.
    holder            uuid,
    held_until        timestamptz NOT NULL DEFAULT '-infinity',
    -- Every message up to these places has been looked at, for the first time,
    -- and once more after a while.
    soon_at           timestamptz NOT NULL,
    soon_conversation uuid        NOT NULL,
    soon_seq          bigint      NOT NULL,
    late_at           timestamptz NOT NULL,
    late_conversation uuid        NOT NULL,
    late_seq          bigint      NOT NULL
);

-- Up to which message a member was notified of a conversation. It is written
-- for those who were, so it costs the others nothing. It refers to no member: to
-- make a foreign key would hold up all who write members.
CREATE TABLE IF NOT EXISTS notified (
    conversation_id uuid   NOT NULL,
    user_id         uuid   NOT NULL,
    seq             bigint NOT NULL CHECK (seq > 0),
    PRIMARY KEY (conversation_id, user_id)
);

-- +goose Down
DROP TABLE IF EXISTS notified;
DROP TABLE IF EXISTS notifier;
DROP INDEX CONCURRENTLY IF EXISTS messages_by_time;

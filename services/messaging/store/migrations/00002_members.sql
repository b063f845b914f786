-- +goose Up

-- The tables are locked for moments: nothing here reads or writes their rows. A
-- lock that is not to be had in time fails the migration, which is tried again.
SET LOCAL lock_timeout = '5s';

-- Beside the conversations about tasks there are those with the marketplace's
-- support, which have no task. What is added has defaults, since pods of the
-- release before go on inserting.
ALTER TABLE conversations
    ALTER COLUMN task_id DROP NOT NULL,
    ALTER COLUMN tasker_id DROP NOT NULL,
    ADD COLUMN kind text NOT NULL DEFAULT 'task',
    -- True while the conversation has two members, one of whom blocks the other.
    -- It follows from members and blocks, and stands here because senders lock
    -- this row anyway.
    ADD COLUMN blocked boolean NOT NULL DEFAULT false,
    -- NOT VALID: no row breaks it, and to look would take as long as there are rows.
    ADD CONSTRAINT conversations_about CHECK (
        CASE kind
            WHEN 'task' THEN task_id IS NOT NULL AND tasker_id IS NOT NULL
            WHEN 'support' THEN task_id IS NULL AND tasker_id IS NULL
            ELSE false
        END) NOT VALID;

ALTER TABLE members
    DROP CONSTRAINT members_role_check,
    ADD CONSTRAINT members_role_check CHECK (role IN ('client', 'tasker', 'support', 'user')) NOT VALID;

ALTER TABLE stream_items
    DROP CONSTRAINT stream_items_kind_check,
    ADD CONSTRAINT stream_items_kind_check CHECK (kind IN ('message', 'task', 'receipt', 'session', 'conversation')) NOT VALID;

-- Who wants no messages from whom.
CREATE TABLE blocks (
    -- A UUIDv7: the list is newest first.
    id         uuid        NOT NULL,
    blocker_id uuid        NOT NULL,
    blocked_id uuid        NOT NULL CHECK (blocked_id <> blocker_id),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (blocker_id, blocked_id)
);

CREATE UNIQUE INDEX blocks_by_age ON blocks (blocker_id, id);
-- Signals pass neither way, so both ways are asked for.
CREATE INDEX blocks_of_blocked ON blocks (blocked_id, blocker_id);

-- Answers to requests that create something, kept for those who ask again. A row
-- is written in the transaction of the effect, so neither exists without the
-- other. Package idempotency reads and writes it.
CREATE TABLE idempotency_keys (
    principal  uuid        NOT NULL,
    route      text        NOT NULL,
    key        text        NOT NULL,
    -- SHA-256 of what was asked: the same key with another body is a mistake.
    input_hash bytea       NOT NULL CHECK (octet_length(input_hash) = 32),
    status     smallint    NOT NULL,
    body       bytea       NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (principal, route, key)
);

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- +goose Down
-- To go back to the release before needs none of this; it is for development.
DROP TABLE idempotency_keys;
DROP TABLE blocks;
-- Streams keep their items, or they would have gaps; so their check stays, too.
DELETE FROM messages USING conversations c WHERE conversation_id = c.id AND c.kind <> 'task';
DELETE FROM members USING conversations c WHERE conversation_id = c.id AND c.kind <> 'task';
DELETE FROM conversations WHERE kind <> 'task';
ALTER TABLE members
    DROP CONSTRAINT members_role_check,
    ADD CONSTRAINT members_role_check CHECK (role IN ('client', 'tasker'));
ALTER TABLE conversations
    DROP CONSTRAINT conversations_about,
    DROP COLUMN blocked,
    DROP COLUMN kind,
    ALTER COLUMN tasker_id SET NOT NULL,
    ALTER COLUMN task_id SET NOT NULL;

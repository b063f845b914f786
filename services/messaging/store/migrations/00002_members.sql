-- +goose Up

-- The release before works on beside this. Nothing here reads or rewrites a
-- table, so locks are held for moments, but they are many, and its transactions
-- take theirs in another order. So first whoever tends the tables has to go,
-- which hinders nobody else; then the migration gives way, and tries again, long
-- before PostgreSQL would end somebody's transaction to break a deadlock.
LOCK TABLE members, conversations, stream_items IN SHARE UPDATE EXCLUSIVE MODE;
-- +goose StatementBegin
DO $$
DECLARE
    waits text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '150ms', true);
    FOR attempt IN 1..30 LOOP
        BEGIN
            LOCK TABLE members, conversations, stream_items IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 30 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(random() / 10);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', waits, true);
END
$$;
-- +goose StatementEnd

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
    ADD CONSTRAINT stream_items_kind_check CHECK (kind IN ('message', 'task', 'receipt', 'session', 'conversation', 'system_message')) NOT VALID;

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

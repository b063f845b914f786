-- +goose Up

-- Stream items of messages refer to the message, so that one to 200 members is
-- written once and 200 narrow rows. They live in a table for each day, which is
-- dropped as a whole: retention costs neither deletes nor an index by age.
--
-- The release before works on beside this, on a view that is named like the table
-- was. Nothing here reads or rewrites a table, so locks are held for moments, but
-- they are many, and its transactions take theirs in another order. So first
-- whoever tends the tables has to go, which hinders nobody else; then the
-- migration gives way, and tries again, long before PostgreSQL would end
-- somebody's transaction to break a deadlock.
LOCK TABLE conversations, messages, stream_items IN SHARE UPDATE EXCLUSIVE MODE;
-- A head changes with every message. Room in its page makes that an update which
-- touches no index (HOT).
ALTER TABLE streams SET (fillfactor = 50);
ALTER TABLE conversations SET (fillfactor = 70);
-- +goose StatementBegin
DO $$
DECLARE
    waits text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '150ms', true);
    FOR attempt IN 1..30 LOOP
        BEGIN
            LOCK TABLE conversations, messages, stream_items IN ACCESS EXCLUSIVE MODE;
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

CREATE TABLE stream_entries (
    user_id         uuid        NOT NULL,
    "offset"        bigint      NOT NULL CHECK ("offset" > 0),
    kind            text        NOT NULL,
    -- Null for a member's message, which the next two columns name. Messages of
    -- the system keep theirs.
    payload         jsonb,
    conversation_id uuid,
    seq             bigint,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (
        CASE WHEN payload IS NULL THEN conversation_id IS NOT NULL AND seq IS NOT NULL
        ELSE jsonb_typeof(payload) = 'object' END)
) PARTITION BY RANGE (created_at);

-- What no day was made for lands here, rather than be refused.
CREATE TABLE stream_entries_default PARTITION OF stream_entries (PRIMARY KEY (user_id, "offset")) DEFAULT;
-- It is looked through by age, too: nearly always it is empty, but after a way
-- back to the release before it is all there is.
CREATE INDEX stream_entries_default_by_age ON stream_entries_default (created_at);

-- It takes nothing any more, and is emptied when all of it is too old.
ALTER TABLE stream_items RENAME TO stream_items_before;

-- Conversations are never deleted, and whoever writes a message has found and
-- locked its conversation. The check costs a look-up and a second row lock for
-- every message.
ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey;

-- roll_stream_days makes the tables of today and the next days, and drops those
-- of which everything is older than keep_from. It does what the service's role
-- can't, as the role that migrates. Tails must be raised before: see
-- store.Expire. Locks are waited for shortly, since everybody else waits behind
-- the one who waits; what is not done now is done by a later call.
-- +goose StatementBegin
CREATE FUNCTION roll_stream_days(keep_from timestamptz, ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '1s' SET timezone = 'UTC' AS $$
DECLARE
    today   timestamptz := date_trunc('day', now());
    day     timestamptz;
    name    text;
    old     text[];
    dropped integer := 0;
BEGIN
    IF keep_from > today - interval '1 day' THEN
        RAISE EXCEPTION 'entries of the last day are kept';
    END IF;
    IF NOT pg_try_advisory_xact_lock('stream_entries'::regclass::oid::bigint) THEN
        RETURN 0; -- another process is at it
    END IF;

    SELECT coalesce(array_agg(c.relname::text), '{}') INTO old
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'stream_entries'::regclass AND c.relname ~ '^stream_entries_\d{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD')::timestamptz + interval '1 day' <= keep_from;
    IF EXISTS (SELECT FROM stream_entries_default)
        AND NOT EXISTS (SELECT FROM stream_entries_default d WHERE d.created_at >= keep_from) THEN
        old := old || 'stream_entries_default'::text;
    END IF;
    IF EXISTS (SELECT FROM stream_items_before)
        AND NOT EXISTS (SELECT FROM stream_items_before b WHERE b.created_at >= keep_from) THEN
        old := old || 'stream_items_before'::text;
    END IF;
    -- Removing comes first: it locks the whole before its parts, as everybody
    -- does. To attach locks a part alone, and to lock the whole after that would
    -- be a deadlock with its readers.
    IF old <> '{}' THEN
        LOCK TABLE stream_entries IN ACCESS EXCLUSIVE MODE;
    END IF;
    FOREACH name IN ARRAY old LOOP
        IF name = 'stream_items_before' THEN
            TRUNCATE stream_items_before; -- nothing is written to it
        ELSIF name <> 'stream_entries_default' THEN
            EXECUTE format('DROP TABLE %I', name);
        ELSIF EXISTS (SELECT FROM stream_entries_default d WHERE d.created_at >= keep_from) THEN
            CONTINUE; -- something came before the lock
        ELSE
            TRUNCATE stream_entries_default;
        END IF;
        dropped := dropped + 1;
    END LOOP;

    FOR day IN SELECT generate_series(today, today + make_interval(days => ahead), '1 day') LOOP
        name := 'stream_entries_' || to_char(day, 'YYYYMMDD');
        -- A day that began without a table ends without one.
        CONTINUE WHEN to_regclass(name) IS NOT NULL
            OR EXISTS (SELECT FROM stream_entries_default d WHERE d.created_at >= day AND d.created_at < day + interval '1 day');
        -- Attached, not made as a part: that would lock out readers and writers. It
        -- must have the whole's constraints for that.
        EXECUTE format('CREATE TABLE %I (LIKE stream_entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (user_id, "offset"))', name);
        EXECUTE format('ALTER TABLE stream_entries ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, day, day + interval '1 day');
        -- Each time, all of that is read under a lock: one is enough for a call.
        EXIT WHEN EXISTS (SELECT FROM stream_entries_default);
    END LOOP;
    RETURN dropped;
END
$$;
-- +goose StatementEnd

-- What the release before takes for its table.
CREATE VIEW stream_items AS
SELECT e.user_id, e."offset", e.kind,
       coalesce(e.payload, (
           SELECT jsonb_build_object(
               'conversation_id', m.conversation_id, 'seq', m.seq, 'id', m.id, 'client_id', m.client_id,
               'from', m.sender_id, 'body', m.body,
               'sent_at', to_char(m.sent_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
           FROM messages m
           WHERE m.conversation_id = e.conversation_id AND m.seq = e.seq
       )) AS payload,
       e.created_at
FROM stream_entries e
UNION ALL
SELECT b.user_id, b."offset", b.kind, b.payload, b.created_at
FROM stream_items_before b;

-- +goose StatementBegin
CREATE FUNCTION stream_items_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stream_entries (user_id, "offset", kind, payload)
    VALUES (NEW.user_id, NEW."offset", NEW.kind, NEW.payload);
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION stream_items_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM stream_entries e
    WHERE e.user_id = OLD.user_id AND e."offset" = OLD."offset" AND e.created_at = OLD.created_at;
    DELETE FROM stream_items_before b WHERE b.user_id = OLD.user_id AND b."offset" = OLD."offset";
    RETURN OLD;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER stream_items_insert INSTEAD OF INSERT ON stream_items FOR EACH ROW EXECUTE FUNCTION stream_items_insert();
CREATE TRIGGER stream_items_delete INSTEAD OF DELETE ON stream_items FOR EACH ROW EXECUTE FUNCTION stream_items_delete();

-- +goose StatementBegin
DO $$
DECLARE
    grantee name;
BEGIN
    -- A definer's function must not find others' objects by its caller's path.
    EXECUTE format('ALTER FUNCTION roll_stream_days SET search_path = %I, pg_temp', current_schema());
    REVOKE EXECUTE ON FUNCTION roll_stream_days FROM PUBLIC;
    PERFORM roll_stream_days(now() - interval '30 days', 3);
    -- Those who work now, work on without waiting for the grants that follow the
    -- migrations.
    FOR grantee IN
        SELECT DISTINCT p.grantee FROM information_schema.table_privileges p
        WHERE p.table_schema = current_schema() AND p.table_name = 'streams' AND p.grantee <> current_user
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON stream_entries, stream_items TO %I', grantee);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP VIEW stream_items;
DROP FUNCTION stream_items_insert, stream_items_delete, roll_stream_days;
ALTER TABLE stream_items_before RENAME TO stream_items;
INSERT INTO stream_items (user_id, "offset", kind, payload, created_at)
SELECT e.user_id, e."offset", e.kind,
       coalesce(e.payload, (
           SELECT jsonb_build_object(
               'conversation_id', m.conversation_id, 'seq', m.seq, 'id', m.id, 'client_id', m.client_id,
               'from', m.sender_id, 'body', m.body,
               'sent_at', to_char(m.sent_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
           FROM messages m
           WHERE m.conversation_id = e.conversation_id AND m.seq = e.seq
       )),
       e.created_at
FROM stream_entries e;
DROP TABLE stream_entries;
ALTER TABLE messages ADD FOREIGN KEY (conversation_id) REFERENCES conversations (id);
ALTER TABLE streams RESET (fillfactor);
ALTER TABLE conversations RESET (fillfactor);

-- Writes the drafts of members that are not written already. Run it after
-- lock.sql, in the same transaction and as a statement with a snapshot of its
-- own: then it sees the newest head of every conversation and its members as
-- they stay, and no writer of the same key can be under way.
--
-- $1: conversations, $2: senders, $3: client ids, $4: message ids, $5: bodies,
-- one for each draft, no two of which have the same key; $6: the time.
--
-- It returns a row for each draft of a member: its place (from 1), whether it was
-- refused since one member blocks the other, the earlier message with the same
-- key if there is one, its seq, and its body as it is kept. Then, with a user, a
-- row for each stream item: the draft's place, the user, the offset.
WITH draft AS MATERIALIZED (
    SELECT d.place, d.conversation_id, d.sender_id, d.client_id, d.id, d.body::jsonb AS body
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
        WITH ORDINALITY AS d (conversation_id, sender_id, client_id, id, body, place)
), looked AS (
    SELECT d.place, d.conversation_id, d.sender_id, d.client_id, d.id, d.body, c.head,
           e.id IS NULL AND c.blocked AS refused, e.id IS NULL AND NOT c.blocked AS fresh,
           e.id AS earlier_id, e.seq AS earlier_seq, e.sent_at AS earlier_at, e.body = d.body AS same_body
    FROM draft d
    JOIN members m ON m.conversation_id = d.conversation_id AND m.user_id = d.sender_id
    JOIN conversations c ON c.id = d.conversation_id
    LEFT JOIN messages e
        ON e.conversation_id = d.conversation_id AND e.sender_id = d.sender_id AND e.client_id = d.client_id
), numbered AS MATERIALIZED (
    SELECT l.*,
           coalesce(l.earlier_seq, l.head + row_number() OVER (
               PARTITION BY l.conversation_id, l.fresh ORDER BY l.place)) AS seq
    FROM looked l
), written AS (
    INSERT INTO messages (conversation_id, seq, id, sender_id, client_id, body, sent_at)
    SELECT n.conversation_id, n.seq, n.id, n.sender_id, n.client_id, n.body, $6::timestamptz
    FROM numbered n
    WHERE n.fresh
), moved AS (
    UPDATE conversations c
    SET head = h.seq
    FROM (
        SELECT n.conversation_id, max(n.seq) AS seq
        FROM numbered n
        WHERE n.fresh
        GROUP BY n.conversation_id
    ) h
    WHERE c.id = h.conversation_id
), receiver AS MATERIALIZED (
    SELECT m.user_id, n.place, n.conversation_id, n.seq,
           row_number() OVER (PARTITION BY m.user_id ORDER BY n.place) AS nth,
           count(*) OVER (PARTITION BY m.user_id) AS items
    FROM numbered n
    JOIN members m ON m.conversation_id = n.conversation_id
    WHERE n.fresh
), advanced AS (
    -- Locks the streams in the order of user ids, making those that are new.
    INSERT INTO streams (user_id, head)
    SELECT r.user_id, r.items
    FROM receiver r
    WHERE r.nth = 1
    ORDER BY r.user_id
    ON CONFLICT (user_id) DO UPDATE SET head = streams.head + excluded.head
    RETURNING user_id, head
), placed AS MATERIALIZED (
    -- Every row finds its match; FULL only says so that the planner, which expects
    -- a single row, does not compare each with each.
    SELECT r.place, r.conversation_id, r.seq, r.user_id, a.head - r.items + r.nth AS "offset"
    FROM receiver r
    FULL JOIN advanced a ON a.user_id = r.user_id
), appended AS (
    INSERT INTO stream_entries (user_id, "offset", kind, conversation_id, seq)
    SELECT p.user_id, p."offset", 'message', p.conversation_id, p.seq
    FROM placed p
)
SELECT n.place, n.refused, n.earlier_id, n.seq, n.earlier_at, n.same_body, n.body::text AS body, NULL::uuid AS user_id, NULL::bigint AS "offset"
FROM numbered n
UNION ALL
SELECT p.place, NULL, NULL, p.seq, NULL, NULL, NULL, p.user_id, p."offset"
FROM placed p;

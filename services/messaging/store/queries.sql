-- name: MembersOf :many
SELECT conversation_id, user_id, role, read_seq
FROM members
WHERE conversation_id = ANY (@ids::uuid[])
ORDER BY conversation_id, role, user_id;

-- name: StreamHeads :many
SELECT user_id, head
FROM streams
WHERE user_id = ANY (@user_ids::uuid[]);

-- A page of a stream. Tables of days to come are not looked into.
-- name: EntriesAfter :many
SELECT e."offset", e.kind, e.payload, m.conversation_id, m.seq, m.id, m.client_id, m.sender_id, m.body, m.sent_at
FROM (
    SELECT s."offset", s.kind, s.payload, s.conversation_id, s.seq
    FROM stream_entries s
    WHERE s.user_id = @user_id AND s."offset" > @after AND s.created_at < now() + interval '1 day'
    UNION ALL
    SELECT b."offset", b.kind, b.payload, NULL, NULL
    FROM stream_items_before b
    WHERE b.user_id = @user_id AND b."offset" > @after
    ORDER BY "offset"
    LIMIT @max_items
) e
LEFT JOIN messages m ON m.conversation_id = e.conversation_id AND m.seq = e.seq
ORDER BY e."offset";

-- Where many streams are, and the first page of what follows the given offsets:
-- at least one row for each place, all of one snapshot.
-- name: ResumeStreams :many
SELECT d.place::integer AS place, coalesce(t.head, 0)::bigint AS head, coalesce(t.tail, 0)::bigint AS tail,
       coalesce(e."offset", 0)::bigint AS "offset", coalesce(e.kind, '')::text AS kind,
       e.payload, m.conversation_id, m.seq, m.id, m.client_id, m.sender_id, m.body, m.sent_at
FROM (
    SELECT unnest(@places::integer[]) AS place,
           unnest(@user_ids::uuid[])  AS user_id,
           unnest(@afters::bigint[])  AS after
) d
LEFT JOIN streams t ON t.user_id = d.user_id
LEFT JOIN LATERAL (
    SELECT s."offset", s.kind, s.payload, s.conversation_id, s.seq
    FROM stream_entries s
    WHERE d.after >= t.tail AND d.after < t.head
      AND s.user_id = d.user_id AND s."offset" > d.after AND s.created_at < now() + interval '1 day'
    UNION ALL
    SELECT b."offset", b.kind, b.payload, NULL, NULL
    FROM stream_items_before b
    WHERE d.after >= t.tail AND d.after < t.head
      AND b.user_id = d.user_id AND b."offset" > d.after
    ORDER BY "offset"
    LIMIT @max_items
) e ON true
LEFT JOIN messages m ON m.conversation_id = e.conversation_id AND m.seq = e.seq
ORDER BY d.place, e."offset";

-- Appends items to streams, and returns them as they are kept. places numbers
-- them in the order in which they follow.
-- name: AppendEntries :many
WITH item AS MATERIALIZED (
    SELECT n.place, n.user_id, n.kind, n.payload::jsonb AS payload,
           row_number() OVER (PARTITION BY n.user_id ORDER BY n.place) AS nth,
           count(*) OVER (PARTITION BY n.user_id) AS items
    FROM (
        SELECT unnest(@places::integer[]) AS place,
               unnest(@user_ids::uuid[])  AS user_id,
               unnest(@kinds::text[])     AS kind,
               unnest(@payloads::text[])  AS payload
    ) n
), advanced AS (
    INSERT INTO streams (user_id, head)
    SELECT i.user_id, i.items FROM item i WHERE i.nth = 1 ORDER BY i.user_id
    ON CONFLICT (user_id) DO UPDATE SET head = streams.head + excluded.head
    RETURNING user_id, head
), placed AS MATERIALIZED (
    SELECT i.place, i.user_id, i.kind, i.payload, a.head - i.items + i.nth AS "offset"
    FROM item i
    JOIN advanced a ON a.user_id = i.user_id
), appended AS (
    INSERT INTO stream_entries (user_id, "offset", kind, payload)
    SELECT p.user_id, p."offset", p.kind, p.payload FROM placed p
)
SELECT p.place::integer AS place, p."offset"::bigint AS "offset", p.payload::text AS payload
FROM placed p;

-- The newest of what is too old, of some users from one on. What the table of the
-- release before holds is, once all of it is. Each of the two is limited by
-- itself, so that each is read in the order of its own index and no further.
-- name: ExpiredPlaces :many
SELECT e.user_id, max(e.tail)::bigint AS tail
FROM (
    (SELECT s.user_id, max(s."offset")::bigint AS tail
     FROM stream_entries s
     WHERE s.created_at < @keep_from AND s.user_id > @from_user
     GROUP BY s.user_id
     ORDER BY s.user_id
     LIMIT @max_users)
    UNION ALL
    (SELECT b.user_id, max(b."offset")::bigint AS tail
     FROM stream_items_before b
     WHERE b.user_id > @from_user AND NOT EXISTS (SELECT FROM stream_items_before y WHERE y.created_at >= @keep_from)
     GROUP BY b.user_id
     ORDER BY b.user_id
     LIMIT @max_users)
) e
GROUP BY e.user_id
ORDER BY e.user_id
LIMIT @max_users;

-- name: RollStreamDays :one
SELECT roll_stream_days(@keep_from::timestamptz, @ahead::integer)::integer AS dropped;

-- name: LockStreams :exec
SELECT user_id
FROM streams
WHERE user_id = ANY (@user_ids::uuid[])
ORDER BY user_id
FOR NO KEY UPDATE;

-- name: RaiseTails :exec
UPDATE streams s
SET tail = greatest(s.tail, t.tail)
FROM (SELECT unnest(@user_ids::uuid[]) AS user_id, unnest(@tails::bigint[]) AS tail) t
WHERE s.user_id = t.user_id;

-- name: MessagesBefore :many
SELECT seq, id, sender_id, client_id, body, sent_at
FROM messages
WHERE conversation_id = @conversation_id AND seq < @before
ORDER BY seq DESC
LIMIT @max_messages;

-- name: RaiseReadSeq :execrows
UPDATE members
SET read_seq = @seq
WHERE conversation_id = @conversation_id AND user_id = @user_id AND read_seq < @seq;

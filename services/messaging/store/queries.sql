-- name: MembersOf :many
SELECT conversation_id, user_id, role, read_seq
FROM members
WHERE conversation_id = ANY (@ids::uuid[])
ORDER BY conversation_id, role, user_id;

-- Locks the streams in the order of user ids, making those that are new, and
-- moves each head by as many items as will be appended.
-- name: AdvanceStreams :many
INSERT INTO streams (user_id, head)
SELECT n.user_id, n.items
FROM (SELECT unnest(@user_ids::uuid[]) AS user_id, unnest(@items::bigint[]) AS items) n
ORDER BY n.user_id
ON CONFLICT (user_id) DO UPDATE SET head = streams.head + excluded.head
RETURNING user_id, head;

-- name: InsertItems :exec
INSERT INTO stream_items (user_id, "offset", kind, payload)
SELECT unnest(@user_ids::uuid[]),
       unnest(@offsets::bigint[]),
       unnest(@kinds::text[]),
       unnest(@payloads::text[])::jsonb;

-- name: StreamPosition :one
SELECT head, tail
FROM streams
WHERE user_id = @user_id;

-- name: StreamHeads :many
SELECT user_id, head
FROM streams
WHERE user_id = ANY (@user_ids::uuid[]);

-- name: ItemsAfter :many
SELECT "offset", kind, payload
FROM stream_items
WHERE user_id = @user_id AND "offset" > @after
ORDER BY "offset"
LIMIT @max_items;

-- name: DeleteOldItems :many
DELETE FROM stream_items s
USING (
    SELECT o.user_id, o."offset"
    FROM stream_items o
    WHERE o.created_at < @before
    ORDER BY o.created_at
    LIMIT @max_items
    FOR UPDATE SKIP LOCKED
) old
WHERE s.user_id = old.user_id AND s."offset" = old."offset"
RETURNING s.user_id, s."offset";

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

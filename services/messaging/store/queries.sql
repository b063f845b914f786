-- Writers take locks in one order: conversations by id, then members, then
-- streams by user id. So batches of several processes never deadlock.

-- name: LockConversations :many
SELECT id, head
FROM conversations
WHERE id = ANY (@ids::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- name: MembersOf :many
SELECT conversation_id, user_id, role, read_seq
FROM members
WHERE conversation_id = ANY (@ids::uuid[])
ORDER BY conversation_id, role, user_id;

-- Run it after LockConversations, as a statement with a snapshot of its own:
-- then no writer of the same key can be under way.
-- name: FindSent :many
SELECT d.place::integer AS place, m.id, m.seq, m.sent_at, (m.body = d.body)::boolean AS same_body
FROM messages m
JOIN (
    SELECT unnest(@places::integer[])        AS place,
           unnest(@conversation_ids::uuid[]) AS conversation_id,
           unnest(@sender_ids::uuid[])       AS sender_id,
           unnest(@client_ids::uuid[])       AS client_id,
           unnest(@bodies::text[])::jsonb    AS body
) d ON m.conversation_id = d.conversation_id AND m.sender_id = d.sender_id AND m.client_id = d.client_id;

-- name: InsertMessages :exec
INSERT INTO messages (conversation_id, seq, id, sender_id, client_id, body, sent_at)
SELECT unnest(@conversation_ids::uuid[]),
       unnest(@seqs::bigint[]),
       unnest(@ids::uuid[]),
       unnest(@sender_ids::uuid[]),
       unnest(@client_ids::uuid[]),
       unnest(@bodies::text[])::jsonb,
       @sent_at::timestamptz;

-- name: SetConversationHeads :exec
UPDATE conversations c
SET head = h.head
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@heads::bigint[]) AS head) h
WHERE c.id = h.id;

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

-- name: InsertConversation :execrows
INSERT INTO conversations (id, task_id, tasker_id, title)
VALUES (@id, @task_id, @tasker_id, @title)
ON CONFLICT ON CONSTRAINT conversations_one_per_pair DO NOTHING;

-- name: InsertMember :exec
INSERT INTO members (conversation_id, user_id, role)
VALUES (@conversation_id, @user_id, @role);

-- name: ConversationOfPair :one
SELECT id
FROM conversations
WHERE task_id = @task_id AND tasker_id = @tasker_id;

-- name: ConversationOfMember :one
SELECT c.id, c.task_id, c.title, c.head, c.created_at
FROM members m
JOIN conversations c ON c.id = m.conversation_id
WHERE m.conversation_id = @id AND m.user_id = @user_id;

-- name: ConversationsOfMember :many
SELECT c.id, c.task_id, c.title, c.head, c.created_at
FROM members m
JOIN conversations c ON c.id = m.conversation_id
WHERE m.user_id = @user_id
  AND m.conversation_id < @before
  AND (sqlc.narg(task_id)::uuid IS NULL OR c.task_id = sqlc.narg(task_id)::uuid)
ORDER BY m.conversation_id DESC
LIMIT @max_conversations;

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

-- Who is in which conversation, who blocks whom, and what the system writes.

-- Writers take locks in one order: users by id (LockUsers), conversations by id,
-- then members, then streams by user id. So batches of several processes never
-- deadlock.

-- Whoever reads a conversation's members after this sees them as they are until
-- the transaction ends: who changes them holds this lock, too.
-- name: LockConversations :many
SELECT id, head
FROM conversations
WHERE id = ANY (@ids::uuid[])
ORDER BY id
FOR NO KEY UPDATE;

-- What of some messages the system has written already. Run it after
-- LockConversations, as a statement with a snapshot of its own: then no writer of
-- the same key can be under way.
-- name: SystemMessagesSent :many
SELECT m.client_id
FROM messages m
JOIN (
    SELECT unnest(@conversation_ids::uuid[]) AS conversation_id,
           unnest(@client_ids::uuid[])       AS client_id
) d ON m.conversation_id = d.conversation_id AND m.client_id = d.client_id
WHERE m.sender_id = '00000000-0000-0000-0000-000000000000';

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

-- A pair's conversation, unless there is one.
-- name: InsertTaskConversation :execrows
INSERT INTO conversations (id, kind, task_id, tasker_id, title)
VALUES (@id, 'task', @task_id::uuid, @tasker_id::uuid, @title)
ON CONFLICT ON CONSTRAINT conversations_one_per_pair DO NOTHING;

-- name: InsertSupportConversation :exec
INSERT INTO conversations (id, kind, title, created_at)
VALUES (@id, 'support', @title, @created_at);

-- name: InsertMembers :exec
INSERT INTO members (conversation_id, user_id, role, read_seq)
SELECT @conversation_id, unnest(@user_ids::uuid[]), unnest(@roles::text[]), @read_seq;

-- name: DeleteMember :exec
DELETE FROM members
WHERE conversation_id = @conversation_id AND user_id = @user_id;

-- name: ConversationOfPair :one
SELECT id
FROM conversations
WHERE task_id = @task_id::uuid AND tasker_id = @tasker_id::uuid;

-- name: ConversationByID :one
SELECT id, kind, task_id, title, head, blocked, created_at
FROM conversations
WHERE id = @id;

-- name: HeadForMember :one
SELECT c.head
FROM members m
JOIN conversations c ON c.id = m.conversation_id
WHERE m.conversation_id = @id AND m.user_id = @user_id;

-- What counts as unread: messages of others beyond the read position. Of those
-- that follow it only the newest are looked at, so that a member who only ever
-- sends costs no more than one who reads.
-- name: ConversationOfMember :one
SELECT c.id, c.kind, c.task_id, c.title, c.head, c.blocked, c.created_at, u.unread
FROM members m
JOIN conversations c ON c.id = m.conversation_id
CROSS JOIN LATERAL (
    SELECT count(*) AS unread
    FROM messages x
    WHERE x.conversation_id = c.id
      AND x.seq > greatest(m.read_seq, c.head - @max_unread::bigint)
      AND x.sender_id <> m.user_id
) u
WHERE m.conversation_id = @id AND m.user_id = @user_id;

-- name: ConversationsOfMember :many
SELECT c.id, c.kind, c.task_id, c.title, c.head, c.blocked, c.created_at, u.unread
FROM members m
JOIN conversations c ON c.id = m.conversation_id
CROSS JOIN LATERAL (
    SELECT count(*) AS unread
    FROM messages x
    WHERE x.conversation_id = c.id
      AND x.seq > greatest(m.read_seq, c.head - @max_unread::bigint)
      AND x.sender_id <> m.user_id
) u
WHERE m.user_id = @user_id
  AND m.conversation_id < @before
  AND (sqlc.narg(task_id)::uuid IS NULL OR c.task_id = sqlc.narg(task_id)::uuid)
  AND (NOT @unread::boolean OR u.unread > 0)
ORDER BY m.conversation_id DESC
LIMIT @max_conversations;

-- name: UnreadOfMember :one
SELECT count(*) FILTER (WHERE u.unread > 0) AS conversations,
       coalesce(sum(u.unread), 0)::bigint   AS messages
FROM (
    SELECT n.conversation_id, n.user_id, n.read_seq
    FROM members n
    WHERE n.user_id = @user_id
    ORDER BY n.conversation_id DESC
    LIMIT @max_conversations
) m
JOIN conversations c ON c.id = m.conversation_id
CROSS JOIN LATERAL (
    SELECT count(*) AS unread
    FROM messages x
    WHERE x.conversation_id = c.id
      AND x.seq > greatest(m.read_seq, c.head - @max_unread::bigint)
      AND x.sender_id <> m.user_id
) u;

-- The members whom a member's signals reach: none, not even the member, if the
-- user is no member.
-- name: AudienceOf :many
SELECT o.user_id
FROM members o
WHERE o.conversation_id = @conversation_id
  AND EXISTS (SELECT FROM members me WHERE me.conversation_id = @conversation_id AND me.user_id = @user_id)
  AND o.user_id NOT IN (
      SELECT b.blocked_id FROM blocks b WHERE b.blocker_id = @user_id
      UNION ALL
      SELECT b.blocker_id FROM blocks b WHERE b.blocked_id = @user_id
  );

-- Whom presence is told to. Who must hear nothing of whom is left out here, in
-- both directions, since everything that is told or answered goes by it.
-- name: Audiences :many
SELECT wanted.user_id::uuid AS of_user, audience.user_id::uuid AS user_id
FROM (SELECT unnest(@user_ids::uuid[]) AS user_id) wanted
CROSS JOIN LATERAL (
    SELECT DISTINCT other.user_id
    FROM (
        SELECT m.conversation_id
        FROM members m
        WHERE m.user_id = wanted.user_id
        ORDER BY m.conversation_id DESC
        LIMIT @max_conversations
    ) newest
    JOIN members other ON other.conversation_id = newest.conversation_id
    WHERE other.user_id <> wanted.user_id
      AND other.user_id NOT IN (
          SELECT b.blocked_id FROM blocks b WHERE b.blocker_id = wanted.user_id
          UNION ALL
          SELECT b.blocker_id FROM blocks b WHERE b.blocked_id = wanted.user_id
      )
    LIMIT @max_audience
) audience;

-- Holds users until the transaction ends, in the given order, which is that of
-- ids: while one holds a user, nobody else blocks the user, and the user gets
-- into no conversation of two.
-- name: LockUsers :exec
SELECT pg_advisory_xact_lock(hashtextextended('messaging/user/' || u.id::text, 0))
FROM unnest(@user_ids::uuid[]) AS u (id);

-- name: InsertBlock :execrows
INSERT INTO blocks (id, blocker_id, blocked_id, created_at)
VALUES (@id, @blocker_id, @blocked_id, @created_at)
ON CONFLICT (blocker_id, blocked_id) DO NOTHING;

-- name: DeleteBlock :exec
DELETE FROM blocks
WHERE blocker_id = @blocker_id AND blocked_id = @blocked_id;

-- name: CountBlocks :one
SELECT count(*)
FROM blocks
WHERE blocker_id = @blocker_id;

-- name: BlocksOf :many
SELECT id, blocked_id, created_at
FROM blocks
WHERE blocker_id = @blocker_id AND id < @before
ORDER BY id DESC
LIMIT @max_blocks;

-- name: SharedConversations :many
SELECT a.conversation_id
FROM members a
JOIN members b ON b.conversation_id = a.conversation_id
WHERE a.user_id = @user_id AND b.user_id = @other_id
ORDER BY a.conversation_id;

-- Makes the flag what members and blocks say; the conversations are locked.
-- name: RefreshBlocked :exec
UPDATE conversations c
SET blocked = n.blocked
FROM (
    SELECT m.conversation_id,
           cardinality(m.users) = 2 AND EXISTS (
               SELECT FROM blocks b
               WHERE (b.blocker_id = m.users[1] AND b.blocked_id = m.users[2])
                  OR (b.blocker_id = m.users[2] AND b.blocked_id = m.users[1])
           ) AS blocked
    FROM (
        SELECT conversation_id, array_agg(user_id) AS users
        FROM members
        WHERE conversation_id = ANY (@ids::uuid[])
        GROUP BY conversation_id
    ) m
) n
WHERE c.id = n.conversation_id AND c.blocked <> n.blocked;

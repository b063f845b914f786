-- Who is told of messages while away: package notify.

-- The work begins a minute ago, so that it misses nothing of what is sent while
-- the first process that notifies starts.
-- name: MakeNotifier :exec
INSERT INTO notifier (soon_at, soon_conversation, soon_seq, late_at, late_conversation, late_seq)
VALUES (clock_timestamp() - interval '1 minute', @nobody, 0, clock_timestamp() - interval '1 minute', @nobody, 0)
ON CONFLICT DO NOTHING;

-- name: NotifierState :one
SELECT holder, (held_until > clock_timestamp())::boolean AS held, clock_timestamp()::timestamptz AS now,
       soon_at, soon_conversation, soon_seq, late_at, late_conversation, late_seq
FROM notifier;

-- name: HoldNotifier :execrows
UPDATE notifier
SET holder = @holder::uuid, held_until = clock_timestamp() + make_interval(secs => @seconds::double precision)
WHERE holder = @holder::uuid OR held_until <= clock_timestamp();

-- name: MoveNotifierSoon :execrows
UPDATE notifier
SET held_until = clock_timestamp() + make_interval(secs => @seconds::double precision),
    soon_at = @at, soon_conversation = @conversation, soon_seq = @seq
WHERE holder = @holder::uuid AND held_until > clock_timestamp();

-- name: MoveNotifierLate :execrows
UPDATE notifier
SET held_until = clock_timestamp() + make_interval(secs => @seconds::double precision),
    late_at = @at, late_conversation = @conversation, late_seq = @seq
WHERE holder = @holder::uuid AND held_until > clock_timestamp();

-- name: ReleaseNotifier :exec
UPDATE notifier
SET held_until = '-infinity'
WHERE holder = @holder::uuid;

-- name: RecordNotified :exec
INSERT INTO notified AS n (conversation_id, user_id, seq)
SELECT unnest(@conversation_ids::uuid[]), unnest(@user_ids::uuid[]), unnest(@seqs::bigint[])
ON CONFLICT (conversation_id, user_id) DO UPDATE SET seq = greatest(n.seq, excluded.seq);

-- The range of sent_at stands by itself: the index knows nothing of rows.
-- name: MessagesByTime :many
SELECT conversation_id, seq, id, sender_id, sent_at
FROM messages
WHERE sent_at >= @after_at AND sent_at < @until
  AND (sent_at, conversation_id, seq) > (@after_at, @after_conversation::uuid, @after_seq::bigint)
ORDER BY sent_at, conversation_id, seq
LIMIT @max_messages;

-- name: MembersToNotify :many
SELECT m.conversation_id, m.user_id, greatest(m.read_seq, coalesce(n.seq, 0))::bigint AS known_seq
FROM members m
LEFT JOIN notified n ON n.conversation_id = m.conversation_id AND n.user_id = m.user_id
WHERE m.conversation_id = ANY (@ids::uuid[])
ORDER BY m.conversation_id, m.user_id;

-- name: CountUnreadToNotify :many
SELECT w.place::integer AS place, (
    SELECT count(*)
    FROM (
        SELECT FROM messages x
        WHERE x.conversation_id = m.conversation_id AND x.seq > m.read_seq AND x.sender_id <> m.user_id
        LIMIT @max_unread
    ) others
) AS unread
FROM (
    SELECT unnest(@places::integer[]) AS place, unnest(@conversation_ids::uuid[]) AS conversation_id, unnest(@user_ids::uuid[]) AS user_id
) w
JOIN members m ON m.conversation_id = w.conversation_id AND m.user_id = w.user_id;

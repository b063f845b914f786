-- Locks the conversations that drafts are of, in the order of their ids, so
-- that batches of several processes never deadlock. All of them, their members'
-- or not: who is a member is only known once they are locked, since whoever
-- changes members holds this lock, too. $1: conversations.
SELECT c.id
FROM conversations c
WHERE c.id = ANY ($1::uuid[])
ORDER BY c.id
FOR NO KEY UPDATE;

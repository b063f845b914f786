-- name: InsertUser :exec
INSERT INTO users (id, email, display_name, password_hash, created_at)
VALUES ($1, $2, $3, $4, $5);

-- name: SelectCredentials :one
SELECT id, password_hash FROM users WHERE lower(email) = lower(sqlc.arg(email));

-- name: SelectUser :one
SELECT id, email, display_name, created_at FROM users WHERE id = $1;

-- name: InsertSession :exec
INSERT INTO sessions (id, user_id, counter, secret, created_at, rotated_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: LockSession :one
SELECT id, user_id, counter, secret, created_at, rotated_at, repeated_at, late_repeats,
       expires_at, ended_at, end_reason
FROM sessions WHERE id = $1 FOR UPDATE;

-- name: LockExpiredSessions :many
SELECT id, user_id, counter, secret, created_at, rotated_at, repeated_at, late_repeats,
       expires_at, ended_at, end_reason
FROM sessions WHERE ended_at IS NULL AND expires_at <= sqlc.arg(now)::timestamptz
ORDER BY expires_at LIMIT sqlc.arg(batch) FOR UPDATE SKIP LOCKED;

-- name: UpdateSession :exec
UPDATE sessions
SET counter = $2, rotated_at = $3, repeated_at = $4, late_repeats = $5, expires_at = $6,
    ended_at = $7, end_reason = $8
WHERE id = $1;

-- name: DeleteEndedSessions :execrows
DELETE FROM sessions WHERE id IN (
    SELECT s.id FROM sessions s WHERE s.ended_at < sqlc.arg(before)::timestamptz
    LIMIT sqlc.arg(batch) FOR UPDATE SKIP LOCKED
);

-- The key of what clients carry: package seal.

-- name: SealingKey :one
SELECT key
FROM sealing_keys;

-- name: MakeSealingKey :exec
INSERT INTO sealing_keys (key)
VALUES (@key)
ON CONFLICT DO NOTHING;

-- name: GetTask :one
SELECT id, client_id, tasker_id, title, description, budget_amount, budget_currency, location,
       status, submission_note, version, created_at, updated_at
FROM tasks WHERE id = @id;

-- name: LockTask :one
SELECT id, client_id, tasker_id, title, description, budget_amount, budget_currency, location,
       status, submission_note, version, created_at, updated_at
FROM tasks WHERE id = @id FOR UPDATE;

-- name: ListTasks :many
-- Each arm walks one index and stops at the limit, however many tasks there are:
-- one condition with OR would walk over every task that is done.
SELECT id, client_id, tasker_id, title, description, budget_amount, budget_currency, location,
       status, submission_note, version, created_at, updated_at
FROM tasks WHERE id IN (
    (SELECT o.id FROM tasks AS o
     WHERE o.status = 'open' AND NOT @mine::boolean
       AND (sqlc.narg('status')::text IS NULL OR sqlc.narg('status')::text = 'open')
       AND o.id < @before::uuid
     ORDER BY o.id DESC LIMIT @row_limit::integer)
    UNION ALL
    (SELECT c.id FROM tasks AS c
     WHERE c.client_id = @user_id
       AND (sqlc.narg('status')::text IS NULL OR c.status = sqlc.narg('status')::text)
       AND c.id < @before::uuid
     ORDER BY c.id DESC LIMIT @row_limit::integer)
    UNION ALL
    (SELECT t.id FROM tasks AS t
     WHERE t.tasker_id = @user_id
       AND (sqlc.narg('status')::text IS NULL OR t.status = sqlc.narg('status')::text)
       AND t.id < @before::uuid
     ORDER BY t.id DESC LIMIT @row_limit::integer)
)
ORDER BY id DESC LIMIT @row_limit::integer;

-- name: InsertTask :exec
INSERT INTO tasks (id, client_id, tasker_id, title, description, budget_amount, budget_currency, location,
                   status, submission_note, version, created_at, updated_at)
VALUES (@id, @client_id, @tasker_id, @title, @description, @budget_amount, @budget_currency, @location,
        @status, @submission_note, @version, @created_at, @updated_at);

-- name: UpdateTask :execrows
-- What was posted stays as it is; what becomes of it changes. The version keeps
-- out a writer that did not lock.
UPDATE tasks
SET tasker_id = @tasker_id, status = @status, submission_note = @submission_note,
    version = @version, updated_at = @updated_at
WHERE id = @id AND version + 1 = @version;

-- name: GetOffer :one
SELECT id, task_id, tasker_id, price_amount, price_currency, message, status, created_at, updated_at
FROM offers WHERE id = @id AND task_id = @task_id;

-- name: ListOffers :many
SELECT id, task_id, tasker_id, price_amount, price_currency, message, status, created_at, updated_at
FROM offers
WHERE task_id = @task_id
  AND (sqlc.narg('tasker_id')::uuid IS NULL OR tasker_id = sqlc.narg('tasker_id')::uuid)
  AND id < @before::uuid
ORDER BY id DESC LIMIT @row_limit::integer;

-- name: HasOffered :one
SELECT EXISTS (SELECT FROM offers WHERE task_id = @task_id AND tasker_id = @tasker_id);

-- name: InsertOffer :exec
INSERT INTO offers (id, task_id, tasker_id, price_amount, price_currency, message, status, created_at, updated_at)
VALUES (@id, @task_id, @tasker_id, @price_amount, @price_currency, @message, @status, @created_at, @updated_at);

-- name: UpdateOffer :exec
UPDATE offers SET status = @status, updated_at = @updated_at WHERE id = @id;

-- name: SupersedeOffers :exec
UPDATE offers SET status = 'superseded', updated_at = @updated_at
WHERE task_id = @task_id AND status = 'pending';

package store_test

import (
	"testing"

	"github.com/google/uuid"
)

// During a rollout pods of the release before go on with their statements. These
// are v0.1.0's.
func TestThePreviousReleasesStatements(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user := uuid.New(), uuid.New()
	support := f.support(t, agent, user)

	// What it opens is a task's, and not blocked.
	id, tasker, task := uuid.Must(uuid.NewV7()), uuid.New(), uuid.New()
	for _, statement := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO conversations (id, task_id, tasker_id, title) VALUES ($1, $2, $3, $4)
			ON CONFLICT ON CONSTRAINT conversations_one_per_pair DO NOTHING`, []any{id, task, tasker, "Shelves"}},
		{`INSERT INTO members (conversation_id, user_id, role) VALUES ($1, $2, $3)`, []any{id, user, "client"}},
		{`INSERT INTO members (conversation_id, user_id, role) VALUES ($1, $2, $3)`, []any{id, tasker, "tasker"}},
	} {
		if _, err := f.pool.Exec(t.Context(), statement.sql, statement.args...); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := f.Conversation(t.Context(), id, user); err != nil || c.Kind != "task" || c.Blocked {
		t.Errorf("opened by the release before: %+v, %v", c, err)
	}

	// It lists what is none of its kind as a conversation about task 0.
	rows, err := f.pool.Query(t.Context(), `SELECT c.id, c.task_id FROM members m JOIN conversations c ON c.id = m.conversation_id
		WHERE m.user_id = $1 ORDER BY m.conversation_id`, user)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	tasks := map[uuid.UUID]uuid.UUID{}
	for rows.Next() {
		var id, task uuid.UUID
		if err := rows.Scan(&id, &task); err != nil {
			t.Fatal(err)
		}
		tasks[id] = task
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if tasks[support] != uuid.Nil || tasks[id] != task || len(tasks) != 2 {
		t.Errorf("tasks %v", tasks)
	}
}

package tasks

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Command asks to move a task on.
type Command struct {
	Actor uuid.UUID
	Task  uuid.UUID
	// Expected refuses the command if the task has another version.
	Expected Expected
}

// Start says that the tasker began.
func (s *Service) Start(ctx context.Context, c Command) (Task, error) {
	return s.move(ctx, c, actionStart, nil)
}

// Submit says that the tasker is done, with an optional note to the client.
func (s *Service) Submit(ctx context.Context, c Command, note string) (Task, error) {
	note, err := text("/note", note, 0, MaxNote, true)
	if err != nil {
		return Task{}, err
	}
	return s.move(ctx, c, actionSubmit, func(_ context.Context, _ Tx, t *Task) error {
		t.SubmissionNote = note
		return nil
	})
}

// Complete says that the client is content.
func (s *Service) Complete(ctx context.Context, c Command) (Task, error) {
	return s.move(ctx, c, actionComplete, nil)
}

// Cancel takes an open task back. Its pending offers are superseded.
func (s *Service) Cancel(ctx context.Context, c Command) (Task, error) {
	return s.move(ctx, c, actionCancel, func(ctx context.Context, tx Tx, t *Task) error {
		return tx.SupersedeOffers(ctx, t.ID, t.UpdatedAt)
	})
}

// move takes a task to where the action leads from its present status: if the
// actor may see it, may do this, expects its version, and the status allows it,
// checked in that order. also, if set, does what else belongs to the move; the
// task that it gets has the new status, version and time.
func (s *Service) move(ctx context.Context, c Command, act action, also func(ctx context.Context, tx Tx, t *Task) error) (Task, error) {
	var (
		task     Task
		from, to Status
		found    bool
	)
	err := s.store.InTx(ctx, func(ctx context.Context, tx Tx) error {
		var by role
		var err error
		if task, by, err = visible(ctx, tx, tx.LockTask, c.Actor, c.Task); err != nil {
			return err
		}
		found, from = true, task.Status
		var refused error
		to, refused = taskLife.next("task", from, act, by)
		if errors.Is(refused, errForbidden) {
			return refused
		}
		// A caller that is stale learns that first: it decided on old grounds.
		if err := c.Expected.check(task.Version); err != nil {
			return err
		}
		if refused != nil {
			return refused
		}
		task.Status, task.UpdatedAt = to, s.moment()
		task.Version++
		if also != nil {
			if err := also(ctx, tx, &task); err != nil {
				return err
			}
		}
		if err := tx.UpdateTask(ctx, task); err != nil {
			return err
		}
		return tx.Append(ctx, changed(task, from, c.Actor))
	})
	if found {
		s.observer.Transition(from, to, resultOf(err))
	}
	if err != nil {
		return Task{}, fmt.Errorf("move task %s: %w", c.Task, err)
	}
	return task, nil
}

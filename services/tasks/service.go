package tasks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/fault"
)

// ErrNotFound is for what is not there, and for what the caller may not know of.
// A Store returns it (or an error that wraps it) for rows that it does not have.
var ErrNotFound = fault.New(fault.NotFound, "not_found", "There is no such thing, or it is not yours to see.")

// ErrOfferPending refuses a second pending offer of a tasker on a task. A Store
// returns it from InsertOffer.
var ErrOfferPending = fault.New(fault.Conflict, "offer_pending",
	"You have an offer on this task already. Withdraw it to make another.")

var errOwnTask = fault.New(fault.Forbidden, "own_task", "You can't make an offer on your own task.")

// Store keeps tasks and offers.
type Store interface {
	Reader
	// InTx runs f in one transaction: all of its writes stand, or none.
	InTx(ctx context.Context, f func(ctx context.Context, tx Tx) error) error
}

// Reader looks things up. Lists are newest first, and start after before (its
// own place excluded) unless that is uuid.Nil.
type Reader interface {
	Task(ctx context.Context, id uuid.UUID) (Task, error)
	// Tasks lists what Filter describes for a user.
	Tasks(ctx context.Context, user uuid.UUID, filter Filter, before uuid.UUID, limit int) ([]Task, error)
	// Offers lists a task's offers; those of one tasker, unless that is uuid.Nil.
	Offers(ctx context.Context, task, tasker, before uuid.UUID, limit int) ([]Offer, error)
	// HasOffered says whether a user ever made an offer on a task.
	HasOffered(ctx context.Context, task, user uuid.UUID) (bool, error)
}

// Tx is one transaction.
type Tx interface {
	Reader
	// LockTask reads a task that nobody else changes until the end. It is the
	// lock of the task's offers too: take it first.
	LockTask(ctx context.Context, id uuid.UUID) (Task, error)
	Offer(ctx context.Context, task, id uuid.UUID) (Offer, error)
	InsertTask(ctx context.Context, t Task) error
	// UpdateTask writes a task whose version is one above the stored one's.
	UpdateTask(ctx context.Context, t Task) error
	InsertOffer(ctx context.Context, o Offer) error
	UpdateOffer(ctx context.Context, o Offer) error
	// SupersedeOffers turns a task's pending offers into superseded ones.
	SupersedeOffers(ctx context.Context, task uuid.UUID, at time.Time) error
	// Append tells the other services, once the transaction stands.
	Append(ctx context.Context, event events.Event) error
}

// Observer hears of every attempt to move a task to another status.
type Observer interface {
	Transition(from, to Status, result Result)
}

// Result is how an attempt ended.
type Result string

// The results.
const (
	ResultDone      Result = "done"
	ResultIllegal   Result = "illegal"
	ResultForbidden Result = "forbidden"
	ResultStale     Result = "stale"
	// ResultRefused is for any other fault, such as an offer that is not there.
	ResultRefused Result = "refused"
	ResultFailed  Result = "failed"
)

func resultOf(err error) Result {
	if err == nil {
		return ResultDone
	}
	switch f := fault.From(err); {
	case errors.Is(f, errForbidden):
		return ResultForbidden
	case errors.Is(f, errStale):
		return ResultStale
	case f.Kind == fault.Conflict:
		return ResultIllegal
	case f.Kind == fault.Internal, f.Kind == fault.Unavailable:
		return ResultFailed
	}
	return ResultRefused
}

// Service is what users can do. Its methods take who asks first; all errors
// that are not faults are internal.
type Service struct {
	store    Store
	observer Observer
	now      func() time.Time
}

// NewService makes a Service; now is the clock.
func NewService(store Store, observer Observer, now func() time.Time) *Service {
	return &Service{store: store, observer: observer, now: now}
}

// moment is now, as precise as PostgreSQL keeps it.
func (s *Service) moment() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// Post puts up a task of the actor's, open for offers.
func (s *Service) Post(ctx context.Context, actor uuid.UUID, draft Draft) (Task, error) {
	draft, err := draft.clean()
	if err != nil {
		return Task{}, err
	}
	status, err := taskLife.next("task", StatusNone, actionPost, client)
	if err != nil {
		return Task{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Task{}, fmt.Errorf("make a task id: %w", err)
	}
	now := s.moment()
	task := Task{
		ID: id, ClientID: actor,
		Title: draft.Title, Description: draft.Description, Budget: draft.Budget, Location: draft.Location,
		Status: status, Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	err = s.store.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.InsertTask(ctx, task); err != nil {
			return err
		}
		return tx.Append(ctx, changed(task, StatusNone, actor))
	})
	s.observer.Transition(StatusNone, status, resultOf(err))
	if err != nil {
		return Task{}, fmt.Errorf("post task %s: %w", id, err)
	}
	return task, nil
}

// Task returns a task that the actor may see: an open one, or one that the
// actor posted, does, or made an offer on.
func (s *Service) Task(ctx context.Context, actor, id uuid.UUID) (Task, error) {
	task, _, err := visible(ctx, s.store, s.store.Task, actor, id)
	if err != nil {
		return Task{}, err
	}
	return task.seenBy(actor), nil
}

// Tasks lists open tasks and the actor's own; more says that the list goes on.
func (s *Service) Tasks(ctx context.Context, actor uuid.UUID, filter Filter, page Page) (tasks []Task, more bool, err error) {
	limit := page.limit()
	tasks, err = s.store.Tasks(ctx, actor, filter, page.Before, limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list tasks: %w", err)
	}
	tasks, more = cut(tasks, limit)
	return tasks, more, nil
}

// visible gets a task by get and the actor's role to it, or ErrNotFound if the
// actor may not know of it.
func visible(ctx context.Context, r Reader, get func(context.Context, uuid.UUID) (Task, error), actor, id uuid.UUID) (Task, role, error) {
	task, err := get(ctx, id)
	if err != nil {
		return Task{}, stranger, fmt.Errorf("find task %s: %w", id, err)
	}
	offered := false
	if task.Status != StatusOpen && !task.isParty(actor) {
		if offered, err = r.HasOffered(ctx, id, actor); err != nil {
			return Task{}, stranger, fmt.Errorf("find the role of %s to task %s: %w", actor, id, err)
		}
	}
	by := roleOf(task, actor, offered)
	if by == stranger && task.Status != StatusOpen {
		return Task{}, stranger, fmt.Errorf("show task %s to %s: %w", id, actor, ErrNotFound)
	}
	return task, by, nil
}

// changed is the event of a task that came from another status.
func changed(t Task, from Status, actor uuid.UUID) events.Event {
	return events.Event{Subject: t.ID, Data: events.TaskChanged{
		TaskID: t.ID, ClientID: t.ClientID, TaskerID: t.TaskerID, ActorID: actor,
		From: string(from), To: string(t.Status), Title: t.Title, Version: t.Version,
	}}
}

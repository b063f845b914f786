package client

import (
	"context"
	"net/http"

	"github.com/google/uuid"
)

// Money is an amount in the currency's minor unit, as in 2500 EUR for 25 euros.
type Money struct {
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
}

// Task is a chore.
type Task struct {
	ID       uuid.UUID  `json:"id"`
	Status   string     `json:"status"`
	Title    string     `json:"title"`
	ClientID uuid.UUID  `json:"client_id"`
	TaskerID *uuid.UUID `json:"tasker_id"`
}

// Offer is a tasker's offer on a task.
type Offer struct {
	ID       uuid.UUID `json:"id"`
	Status   string    `json:"status"`
	TaskerID uuid.UUID `json:"tasker_id"`
}

func (s *Session) tasks(path string) string { return s.client.urls.Tasks + "/v1/tasks" + path }

// PostTask posts a chore.
func (s *Session) PostTask(ctx context.Context, title, description string, budget Money) (Task, error) {
	var t Task
	return t, s.create(ctx, s.tasks(""), map[string]any{"title": title, "description": description, "budget": budget}, &t)
}

// Task returns a chore as it is now.
func (s *Session) Task(ctx context.Context, id uuid.UUID) (Task, error) {
	var t Task
	_, err := s.do(ctx, request{method: http.MethodGet, url: s.tasks("/" + id.String())}, &t)
	return t, err
}

// MakeOffer offers to do a chore.
func (s *Session) MakeOffer(ctx context.Context, task uuid.UUID, price Money, message string) (Offer, error) {
	var o Offer
	return o, s.create(ctx, s.tasks("/"+task.String()+"/offers"), map[string]any{"price": price, "message": message}, &o)
}

// AcceptOffer gives the chore to the offer's tasker.
func (s *Session) AcceptOffer(ctx context.Context, task, offer uuid.UUID) error {
	return s.move(ctx, task, "/offers/"+offer.String()+"/accept", "assigned")
}

// Start says that the tasker begins.
func (s *Session) Start(ctx context.Context, task uuid.UUID) error {
	return s.move(ctx, task, "/start", "in_progress")
}

// Submit says that the work is done.
func (s *Session) Submit(ctx context.Context, task uuid.UUID) error {
	return s.move(ctx, task, "/submit", "submitted")
}

// Complete says that the client agrees.
func (s *Session) Complete(ctx context.Context, task uuid.UUID) error {
	return s.move(ctx, task, "/complete", "completed")
}

// move asks for a transition. When a try was repeated and the task is not in
// the state that the transition starts from, it may be our own earlier try
// that moved it: then the task is where we wanted it.
func (s *Session) move(ctx context.Context, task uuid.UUID, path, want string) error {
	repeated, err := s.do(ctx, request{
		method: http.MethodPost, url: s.tasks("/" + task.String() + path), body: map[string]any{},
	}, nil)
	if err == nil || !repeated || !IsProblem(err, "illegal_transition") {
		return err
	}
	now, getErr := s.Task(ctx, task)
	if getErr != nil {
		return getErr
	}
	if now.Status != want {
		return err
	}
	return nil
}

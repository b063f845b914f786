// Package events is what services tell each other: the types and payloads of
// the shared event log, and the bus subjects that wake its readers. Payloads
// only ever gain fields; a change of meaning is a new type. It imports no
// adapter.
package events

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Event types. The suffix is the version of the payload.
const (
	TypeUserRegistered = "auth.user_registered.v1"
	TypeSessionEnded   = "auth.session_ended.v1"
	TypeOfferMade      = "tasks.offer_made.v1"
	TypeTaskChanged    = "tasks.task_changed.v1"
)

// Event is one to append.
type Event struct {
	// Subject is the id of what it is about: a user, session or task.
	Subject uuid.UUID
	Data    Payload
}

// Type is the payload's.
func (e Event) Type() string { return e.Data.EventType() }

// Payload is implemented by the payload types below.
type Payload interface{ EventType() string }

// Record is one that was read.
type Record struct {
	ID         uuid.UUID
	Type       string
	Subject    uuid.UUID
	OccurredAt time.Time
	Data       json.RawMessage
}

// UserRegistered says that there is a new user. The subject is the user.
type UserRegistered struct {
	UserID      uuid.UUID `json:"user_id"`
	DisplayName string    `json:"display_name"`
}

// EventType implements Payload.
func (UserRegistered) EventType() string { return TypeUserRegistered }

// SessionEnded says that a session's tokens are no longer good. The subject is
// the session.
type SessionEnded struct {
	SessionID uuid.UUID `json:"session_id"`
	UserID    uuid.UUID `json:"user_id"`
	// Reason is "logged_out", "refresh_token_reused" or "expired".
	Reason string `json:"reason"`
}

// EventType implements Payload.
func (SessionEnded) EventType() string { return TypeSessionEnded }

// OfferMade says that a tasker offered to do a task. The subject is the task.
type OfferMade struct {
	TaskID   uuid.UUID `json:"task_id"`
	OfferID  uuid.UUID `json:"offer_id"`
	ClientID uuid.UUID `json:"client_id"`
	TaskerID uuid.UUID `json:"tasker_id"`
	Title    string    `json:"title"`
}

// EventType implements Payload.
func (OfferMade) EventType() string { return TypeOfferMade }

// TaskChanged says that a task's status changed. The subject is the task.
type TaskChanged struct {
	TaskID   uuid.UUID  `json:"task_id"`
	ClientID uuid.UUID  `json:"client_id"`
	TaskerID *uuid.UUID `json:"tasker_id,omitempty"`
	ActorID  uuid.UUID  `json:"actor_id"`
	From     string     `json:"from"`
	To       string     `json:"to"`
	Title    string     `json:"title"`
	// Version is the task's, after the change.
	Version int64 `json:"version"`
}

// EventType implements Payload.
func (TaskChanged) EventType() string { return TypeTaskChanged }

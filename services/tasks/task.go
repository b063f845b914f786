// Package tasks is the domain of chores: clients post them, taskers offer to do
// them, and both carry them through to their end. It says who may do what, and
// when; it must not know HTTP, SQL, the bus or metrics, which adapters beside
// it do.
package tasks

import (
	"time"

	"github.com/google/uuid"
)

// Task is one chore.
type Task struct {
	// ID is a UUIDv7: newer tasks have greater ones.
	ID       uuid.UUID
	ClientID uuid.UUID
	// TaskerID is who does it; nil until an offer is accepted.
	TaskerID    *uuid.UUID
	Title       string
	Description string
	// Budget is what the client thinks of paying; offers are in its currency.
	Budget Money
	// Location is free text; empty where it does not matter.
	Location string
	Status   Status
	// SubmissionNote is what the tasker said on submitting; empty for nothing.
	// Only the client and the tasker see it.
	SubmissionNote string
	// Version grows by one with each change, from 1.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// isParty says whether a user is one of the two whom the task binds.
func (t Task) isParty(user uuid.UUID) bool {
	return t.ClientID == user || t.TaskerID != nil && *t.TaskerID == user
}

// seenBy returns the task as a user who may see it does.
func (t Task) seenBy(user uuid.UUID) Task {
	if !t.isParty(user) {
		t.SubmissionNote = ""
	}
	return t
}

// Offer is a tasker's word to do a task at a price.
type Offer struct {
	ID       uuid.UUID
	TaskID   uuid.UUID
	TaskerID uuid.UUID
	Price    Money
	// Message is to the client; it may be empty.
	Message   string
	Status    OfferStatus
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Draft is a task to be posted.
type Draft struct {
	Title       string
	Description string
	Budget      Money
	Location    string
}

// Bid is an offer to be made.
type Bid struct {
	Price   Money
	Message string
}

// Filter chooses among the tasks that a user may list: all open ones, and the
// user's own in any status. A user owns what it posted and what it does.
type Filter struct {
	// Status keeps those in one status; empty keeps all.
	Status Status
	// Mine keeps the user's own.
	Mine bool
}

// Page asks for part of a list, newest first.
type Page struct {
	// Before is the id that the part before ended with; uuid.Nil for the first.
	Before uuid.UUID
	// Limit is from 1 to MaxPage; anything else means DefaultPage.
	Limit int
}

// Bounds of a page.
const (
	DefaultPage = 20
	MaxPage     = 100
)

func (p Page) limit() int {
	if p.Limit < 1 || p.Limit > MaxPage {
		return DefaultPage
	}
	return p.Limit
}

// cut takes a list of up to limit+1 and tells whether there is more.
func cut[T any](items []T, limit int) ([]T, bool) {
	if len(items) > limit {
		return items[:limit], true
	}
	return items, false
}

package httpapi

import (
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/tasks"
)

// Money is an amount of a currency.
type Money struct {
	AmountMinor int64  `json:"amount_minor" minimum:"1" maximum:"1000000000" doc:"In the currency's minor unit, such as cents."`
	Currency    string `json:"currency" pattern:"^[A-Z]{3}$" doc:"ISO 4217 code." example:"EUR"`
}

// NewTask is a task to be posted.
type NewTask struct {
	Title       string `json:"title" minLength:"1" maxLength:"120"`
	Description string `json:"description" minLength:"1" maxLength:"4000"`
	Budget      Money  `json:"budget"`
	Location    string `json:"location,omitempty" maxLength:"200" doc:"Free text."`
}

func (n NewTask) draft() tasks.Draft {
	return tasks.Draft{Title: n.Title, Description: n.Description, Budget: tasks.Money(n.Budget), Location: n.Location}
}

// Task is a task as the caller may see it.
type Task struct {
	ID             uuid.UUID  `json:"id" format:"uuid"`
	ClientID       uuid.UUID  `json:"client_id" format:"uuid"`
	TaskerID       *uuid.UUID `json:"tasker_id,omitempty" format:"uuid" doc:"Who does it, once an offer is accepted."`
	Title          string     `json:"title"`
	Description    string     `json:"description"`
	Budget         Money      `json:"budget"`
	Location       string     `json:"location,omitempty"`
	Status         string     `json:"status" enum:"open,assigned,in_progress,submitted,completed,cancelled"`
	SubmissionNote string     `json:"submission_note,omitempty" doc:"What the tasker said on submitting."`
	Version        int64      `json:"version" doc:"Grows with each change; the ETag's value."`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

func taskOf(t tasks.Task) Task {
	return Task{
		ID: t.ID, ClientID: t.ClientID, TaskerID: t.TaskerID,
		Title: t.Title, Description: t.Description, Budget: Money(t.Budget), Location: t.Location,
		Status: string(t.Status), SubmissionNote: t.SubmissionNote,
		Version: t.Version, CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt,
	}
}

// TaskList is part of a list of tasks.
type TaskList struct {
	Items      []Task `json:"items" nullable:"false"`
	NextCursor string `json:"next_cursor,omitempty" doc:"Where the list goes on; absent at its end."`
}

// NewOffer is an offer to be made.
type NewOffer struct {
	Price   Money  `json:"price" doc:"In the currency of the task's budget."`
	Message string `json:"message,omitempty" maxLength:"2000"`
}

func (n NewOffer) bid() tasks.Bid {
	return tasks.Bid{Price: tasks.Money(n.Price), Message: n.Message}
}

// Offer is a tasker's offer.
type Offer struct {
	ID        uuid.UUID `json:"id" format:"uuid"`
	TaskID    uuid.UUID `json:"task_id" format:"uuid"`
	TaskerID  uuid.UUID `json:"tasker_id" format:"uuid"`
	Price     Money     `json:"price"`
	Message   string    `json:"message,omitempty"`
	Status    string    `json:"status" enum:"pending,accepted,superseded,withdrawn"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func offerOf(o tasks.Offer) Offer {
	return Offer{
		ID: o.ID, TaskID: o.TaskID, TaskerID: o.TaskerID, Price: Money(o.Price), Message: o.Message,
		Status: string(o.Status), CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
}

// OfferList is part of a list of offers.
type OfferList struct {
	Items      []Offer `json:"items" nullable:"false"`
	NextCursor string  `json:"next_cursor,omitempty" doc:"Where the list goes on; absent at its end."`
}

// Submission is what the tasker says on submitting.
type Submission struct {
	Note string `json:"note,omitempty" maxLength:"2000"`
}

// Package store keeps tasks and offers in PostgreSQL.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/tasks"
	"github.com/marketplane/marketplane/services/tasks/store/internal/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the tasks schema's.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Store implements tasks.Store.
type Store struct {
	reader
	transactor *postgres.Transactor
}

// New makes a Store whose transactions join those of the transactor.
func New(transactor *postgres.Transactor) *Store {
	return &Store{reader: reader{db.New(transactor.Pool)}, transactor: transactor}
}

// InTx implements tasks.Store.
func (s *Store) InTx(ctx context.Context, f func(ctx context.Context, tx tasks.Tx) error) error {
	return s.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return f(ctx, &transaction{reader: reader{db.New(tx)}, tx: tx})
	})
}

// reader implements tasks.Reader.
type reader struct{ queries *db.Queries }

func (r reader) Task(ctx context.Context, id uuid.UUID) (tasks.Task, error) {
	row, err := r.queries.GetTask(ctx, id)
	return taskOf(row), failure("read task", err)
}

func (r reader) Tasks(ctx context.Context, user uuid.UUID, filter tasks.Filter, before uuid.UUID, limit int) ([]tasks.Task, error) {
	params := db.ListTasksParams{UserID: user, Mine: filter.Mine, Before: bound(before), RowLimit: rowLimit(limit)}
	if filter.Status != "" {
		status := string(filter.Status)
		params.Status = &status
	}
	rows, err := r.queries.ListTasks(ctx, params)
	if err != nil {
		return nil, failure("list tasks", err)
	}
	list := make([]tasks.Task, 0, len(rows))
	for _, row := range rows {
		list = append(list, taskOf(row))
	}
	return list, nil
}

func (r reader) Offers(ctx context.Context, task, tasker, before uuid.UUID, limit int) ([]tasks.Offer, error) {
	rows, err := r.queries.ListOffers(ctx, db.ListOffersParams{
		TaskID: task, TaskerID: optional(tasker), Before: bound(before), RowLimit: rowLimit(limit),
	})
	if err != nil {
		return nil, failure("list offers", err)
	}
	list := make([]tasks.Offer, 0, len(rows))
	for _, row := range rows {
		list = append(list, offerOf(row))
	}
	return list, nil
}

func (r reader) HasOffered(ctx context.Context, task, user uuid.UUID) (bool, error) {
	offered, err := r.queries.HasOffered(ctx, db.HasOfferedParams{TaskID: task, TaskerID: user})
	return offered, failure("look for offers", err)
}

// transaction implements tasks.Tx.
type transaction struct {
	reader
	tx pgx.Tx
}

func (t *transaction) LockTask(ctx context.Context, id uuid.UUID) (tasks.Task, error) {
	row, err := t.queries.LockTask(ctx, id)
	return taskOf(row), failure("lock task", err)
}

func (t *transaction) Offer(ctx context.Context, task, id uuid.UUID) (tasks.Offer, error) {
	row, err := t.queries.GetOffer(ctx, db.GetOfferParams{ID: id, TaskID: task})
	return offerOf(row), failure("read offer", err)
}

func (t *transaction) InsertTask(ctx context.Context, task tasks.Task) error {
	return failure("insert task", t.queries.InsertTask(ctx, db.InsertTaskParams{
		ID: task.ID, ClientID: task.ClientID, TaskerID: task.TaskerID,
		Title: task.Title, Description: task.Description,
		BudgetAmount: task.Budget.AmountMinor, BudgetCurrency: task.Budget.Currency,
		Location: task.Location, Status: string(task.Status), SubmissionNote: task.SubmissionNote,
		Version: task.Version, CreatedAt: task.CreatedAt, UpdatedAt: task.UpdatedAt,
	}))
}

func (t *transaction) UpdateTask(ctx context.Context, task tasks.Task) error {
	rows, err := t.queries.UpdateTask(ctx, db.UpdateTaskParams{
		ID: task.ID, TaskerID: task.TaskerID, Status: string(task.Status),
		SubmissionNote: task.SubmissionNote, Version: task.Version, UpdatedAt: task.UpdatedAt,
	})
	if err == nil && rows != 1 {
		return fmt.Errorf("update task: version %d is not the next one", task.Version)
	}
	return failure("update task", err)
}

func (t *transaction) InsertOffer(ctx context.Context, offer tasks.Offer) error {
	err := t.queries.InsertOffer(ctx, db.InsertOfferParams{
		ID: offer.ID, TaskID: offer.TaskID, TaskerID: offer.TaskerID,
		PriceAmount: offer.Price.AmountMinor, PriceCurrency: offer.Price.Currency,
		Message: offer.Message, Status: string(offer.Status),
		CreatedAt: offer.CreatedAt, UpdatedAt: offer.UpdatedAt,
	})
	if postgres.IsUniqueViolation(err, "offers_one_pending") {
		return tasks.ErrOfferPending.Because(err)
	}
	return failure("insert offer", err)
}

func (t *transaction) UpdateOffer(ctx context.Context, offer tasks.Offer) error {
	return failure("update offer", t.queries.UpdateOffer(ctx, db.UpdateOfferParams{
		ID: offer.ID, Status: string(offer.Status), UpdatedAt: offer.UpdatedAt,
	}))
}

func (t *transaction) SupersedeOffers(ctx context.Context, task uuid.UUID, at time.Time) error {
	return failure("supersede offers", t.queries.SupersedeOffers(ctx, db.SupersedeOffersParams{TaskID: task, UpdatedAt: at}))
}

func (t *transaction) Append(ctx context.Context, event events.Event) error {
	return eventlog.Append(ctx, t.tx, event)
}

// failure names the operation of an error, and turns those that callers know
// into faults.
func failure(operation string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%s: %w", operation, tasks.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", operation, postgres.Classify(err))
}

func taskOf(row db.Task) tasks.Task {
	return tasks.Task{
		ID: row.ID, ClientID: row.ClientID, TaskerID: row.TaskerID,
		Title: row.Title, Description: row.Description,
		Budget:   tasks.Money{AmountMinor: row.BudgetAmount, Currency: row.BudgetCurrency},
		Location: row.Location, Status: tasks.Status(row.Status), SubmissionNote: row.SubmissionNote,
		Version: row.Version, CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC(),
	}
}

func offerOf(row db.Offer) tasks.Offer {
	return tasks.Offer{
		ID: row.ID, TaskID: row.TaskID, TaskerID: row.TaskerID,
		Price:   tasks.Money{AmountMinor: row.PriceAmount, Currency: row.PriceCurrency},
		Message: row.Message, Status: tasks.OfferStatus(row.Status),
		CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC(),
	}
}

// optional turns uuid.Nil into null.
func optional(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// bound turns the beginning of a list into an id above all others. A bound that
// is always there is a condition that an index answers, however deep the page.
func bound(before uuid.UUID) uuid.UUID {
	if before == uuid.Nil {
		return uuid.Max
	}
	return before
}

// rowLimit fits a domain's limit, which is at most a page and one, into SQL.
func rowLimit(limit int) int32 { return int32(min(limit, tasks.MaxPage+1)) } //nolint:gosec // G115: bounded

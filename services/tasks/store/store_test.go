package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/tasks"
	"github.com/marketplane/marketplane/services/tasks/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// market is the domain on a database of the test's own.
type market struct {
	*tasks.Service
	t    *testing.T
	pool *pgxpool.Pool
	seen *transitions
}

func newMarket(t *testing.T) *market {
	t.Helper()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentTasks: store.Migrations()})
	pool := database.Pool(t, contract.ComponentTasks)
	seen := &transitions{counts: map[string]int{}}
	service := tasks.NewService(store.New(&postgres.Transactor{Pool: pool}), seen, time.Now)
	return &market{Service: service, t: t, pool: pool, seen: seen}
}

// transitions implements tasks.Observer.
type transitions struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *transitions) Transition(from, to tasks.Status, result tasks.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[string(from)+">"+string(to)+" "+string(result)]++
}

var (
	lawn = tasks.Draft{Title: "Mow the lawn", Description: "Front and back.", Budget: tasks.Money{AmountMinor: 2500, Currency: "EUR"}, Location: "Berlin"}
	bid  = tasks.Bid{Price: tasks.Money{AmountMinor: 2000, Currency: "EUR"}, Message: "Today."}
)

func (m *market) post(client uuid.UUID) tasks.Task {
	m.t.Helper()
	task, err := m.Post(m.t.Context(), client, lawn)
	if err != nil {
		m.t.Fatal(err)
	}
	return task
}

func (m *market) offer(tasker uuid.UUID, task tasks.Task) tasks.Offer {
	m.t.Helper()
	offer, err := m.MakeOffer(m.t.Context(), tasker, task.ID, bid)
	if err != nil {
		m.t.Fatal(err)
	}
	return offer
}

// offers returns the status of each of a task's offers.
func (m *market) offers(client uuid.UUID, task tasks.Task) map[uuid.UUID]tasks.OfferStatus {
	m.t.Helper()
	list, more, err := m.Offers(m.t.Context(), client, task.ID, tasks.Page{Limit: tasks.MaxPage})
	if err != nil || more {
		m.t.Fatalf("offers: more = %t, %v", more, err)
	}
	statuses := map[uuid.UUID]tasks.OfferStatus{}
	for _, o := range list {
		statuses[o.ID] = o.Status
	}
	return statuses
}

// log returns the events of a task, in the order in which they were appended.
func (m *market) log(task uuid.UUID) []events.Payload {
	m.t.Helper()
	rows, err := m.pool.Query(m.t.Context(), "SELECT type, data FROM events WHERE subject = $1 ORDER BY position", task)
	if err != nil {
		m.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (events.Payload, error) {
		var (
			name    string
			data    []byte
			changed events.TaskChanged
			made    events.OfferMade
		)
		if err := row.Scan(&name, &data); err != nil {
			return nil, err
		}
		if name == events.TypeOfferMade {
			return made, json.Unmarshal(data, &made)
		}
		return changed, json.Unmarshal(data, &changed)
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return list
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if err == nil || fault.From(err).Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestJourney(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	ctx, client, tasker, other := t.Context(), uuid.New(), uuid.New(), uuid.New()
	task := m.post(client)
	mine, theirs := m.offer(tasker, task), m.offer(other, task)

	steps := []struct {
		status tasks.Status
		do     func() (tasks.Task, error)
	}{
		{tasks.StatusAssigned, func() (tasks.Task, error) {
			return m.Accept(ctx, tasks.Command{Actor: client, Task: task.ID, Expected: tasks.Expected{1}}, mine.ID)
		}},
		{tasks.StatusInProgress, func() (tasks.Task, error) { return m.Start(ctx, tasks.Command{Actor: tasker, Task: task.ID}) }},
		{tasks.StatusSubmitted, func() (tasks.Task, error) {
			return m.Submit(ctx, tasks.Command{Actor: tasker, Task: task.ID}, " Done. ")
		}},
		{tasks.StatusCompleted, func() (tasks.Task, error) {
			return m.Complete(ctx, tasks.Command{Actor: client, Task: task.ID})
		}},
	}
	want := []events.Payload{
		events.TaskChanged{TaskID: task.ID, ClientID: client, ActorID: client, From: "", To: "open", Title: lawn.Title, Version: 1},
		events.OfferMade{TaskID: task.ID, OfferID: mine.ID, ClientID: client, TaskerID: tasker, Title: lawn.Title},
		events.OfferMade{TaskID: task.ID, OfferID: theirs.ID, ClientID: client, TaskerID: other, Title: lawn.Title},
	}
	from := tasks.StatusOpen
	for i, step := range steps {
		got, err := step.do()
		if err != nil {
			t.Fatalf("to %s: %v", step.status, err)
		}
		if got.Status != step.status || got.Version != int64(i)+2 || got.TaskerID == nil || *got.TaskerID != tasker {
			t.Fatalf("to %s: %+v", step.status, got)
		}
		stored, err := m.Task(ctx, client, task.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("%s: the answer is not what is stored (-stored +answer):\n%s", step.status, diff)
		}
		actor := tasker
		if step.status == tasks.StatusAssigned || step.status == tasks.StatusCompleted {
			actor = client
		}
		want = append(want, events.TaskChanged{
			TaskID: task.ID, ClientID: client, TaskerID: &tasker, ActorID: actor,
			From: string(from), To: string(step.status), Title: lawn.Title, Version: got.Version,
		})
		from = step.status
	}
	if diff := cmp.Diff(want, m.log(task.ID)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	wantOffers := map[uuid.UUID]tasks.OfferStatus{mine.ID: tasks.OfferAccepted, theirs.ID: tasks.OfferSuperseded}
	if diff := cmp.Diff(wantOffers, m.offers(client, task)); diff != "" {
		t.Errorf("offers (-want +got):\n%s", diff)
	}
	wantSeen := map[string]int{
		">open done": 1, "open>assigned done": 1, "assigned>in_progress done": 1,
		"in_progress>submitted done": 1, "submitted>completed done": 1,
	}
	if diff := cmp.Diff(wantSeen, m.seen.counts); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}

	// Who made an offer goes on seeing what became of it, but not the note.
	for user, note := range map[uuid.UUID]string{client: "Done.", tasker: "Done.", other: ""} {
		got, err := m.Task(ctx, user, task.ID)
		if err != nil || got.SubmissionNote != note {
			t.Errorf("%s sees note %q, %v; want %q", user, got.SubmissionNote, err, note)
		}
	}
	_, err := m.Task(ctx, uuid.New(), task.ID)
	wantCode(t, "a stranger looks", err, "not_found")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	ctx, client, tasker, other, stranger := t.Context(), uuid.New(), uuid.New(), uuid.New(), uuid.New()
	open, assigned := m.post(client), m.post(client)
	openOffer, accepted, superseded := m.offer(tasker, open), m.offer(tasker, assigned), m.offer(other, assigned)
	if _, err := m.Accept(ctx, tasks.Command{Actor: client, Task: assigned.ID}, accepted.ID); err != nil {
		t.Fatal(err)
	}
	withdrawn := m.offer(other, open)
	if _, err := m.Withdraw(ctx, other, open.ID, withdrawn.ID); err != nil {
		t.Fatal(err)
	}
	by := func(user uuid.UUID, task tasks.Task, expected ...int64) tasks.Command {
		return tasks.Command{Actor: user, Task: task.ID, Expected: expected}
	}
	tests := map[string]struct {
		do   func() (any, error)
		want string
	}{
		"start as the client":               {func() (any, error) { return m.Start(ctx, by(client, assigned)) }, "forbidden"},
		"start as an offerer":               {func() (any, error) { return m.Start(ctx, by(other, assigned)) }, "forbidden"},
		"start as a stranger":               {func() (any, error) { return m.Start(ctx, by(stranger, assigned)) }, "not_found"},
		"start an open task as a stranger":  {func() (any, error) { return m.Start(ctx, by(stranger, open)) }, "forbidden"},
		"start what is not there":           {func() (any, error) { return m.Start(ctx, tasks.Command{Actor: client, Task: uuid.New()}) }, "not_found"},
		"start a stale version":             {func() (any, error) { return m.Start(ctx, by(tasker, assigned, 1)) }, "version_mismatch"},
		"submit before the start":           {func() (any, error) { return m.Submit(ctx, by(tasker, assigned), "") }, "illegal_transition"},
		"submit stale before the start":     {func() (any, error) { return m.Submit(ctx, by(tasker, assigned, 1), "") }, "version_mismatch"},
		"submit stale as the client":        {func() (any, error) { return m.Submit(ctx, by(client, assigned, 1), "") }, "forbidden"},
		"submit with a bad note":            {func() (any, error) { return m.Submit(ctx, by(tasker, assigned), "\x00") }, "invalid"},
		"complete an open task":             {func() (any, error) { return m.Complete(ctx, by(client, open)) }, "illegal_transition"},
		"cancel an assigned task":           {func() (any, error) { return m.Cancel(ctx, by(client, assigned)) }, "illegal_transition"},
		"cancel as an offerer":              {func() (any, error) { return m.Cancel(ctx, by(tasker, open)) }, "forbidden"},
		"accept as a tasker":                {func() (any, error) { return m.Accept(ctx, by(tasker, open), openOffer.ID) }, "forbidden"},
		"accept another task's offer":       {func() (any, error) { return m.Accept(ctx, by(client, open), superseded.ID) }, "not_found"},
		"accept a withdrawn offer":          {func() (any, error) { return m.Accept(ctx, by(client, open), withdrawn.ID) }, "illegal_transition"},
		"accept a second offer":             {func() (any, error) { return m.Accept(ctx, by(client, assigned), superseded.ID) }, "illegal_transition"},
		"offer on the own task":             {func() (any, error) { return m.MakeOffer(ctx, client, open.ID, bid) }, "own_task"},
		"offer twice":                       {func() (any, error) { return m.MakeOffer(ctx, tasker, open.ID, bid) }, "offer_pending"},
		"offer on an assigned task":         {func() (any, error) { return m.MakeOffer(ctx, other, assigned.ID, bid) }, "illegal_transition"},
		"offer as a stranger on such":       {func() (any, error) { return m.MakeOffer(ctx, stranger, assigned.ID, bid) }, "not_found"},
		"offer nothing":                     {func() (any, error) { return m.MakeOffer(ctx, stranger, open.ID, tasks.Bid{}) }, "invalid"},
		"withdraw twice":                    {func() (any, error) { return m.Withdraw(ctx, other, open.ID, withdrawn.ID) }, "illegal_transition"},
		"withdraw what was accepted":        {func() (any, error) { return m.Withdraw(ctx, tasker, assigned.ID, accepted.ID) }, "illegal_transition"},
		"withdraw what was superseded":      {func() (any, error) { return m.Withdraw(ctx, other, assigned.ID, superseded.ID) }, "illegal_transition"},
		"withdraw another's, as the client": {func() (any, error) { return m.Withdraw(ctx, client, open.ID, openOffer.ID) }, "forbidden"},
		"withdraw another's, as a tasker":   {func() (any, error) { return m.Withdraw(ctx, other, open.ID, openOffer.ID) }, "not_found"},
		"post nothing":                      {func() (any, error) { return m.Post(ctx, client, tasks.Draft{}) }, "invalid"},
		"list offers as a stranger": {func() (any, error) {
			offers, _, err := m.Offers(ctx, stranger, assigned.ID, tasks.Page{})
			return offers, err
		}, "not_found"},
	}
	before := len(m.log(open.ID)) + len(m.log(assigned.ID))
	for name, test := range tests {
		_, err := test.do()
		wantCode(t, name, err, test.want)
	}
	if after := len(m.log(open.ID)) + len(m.log(assigned.ID)); after != before {
		t.Errorf("refused requests left %d events", after-before)
	}
	for task, version := range map[uuid.UUID]int64{open.ID: 1, assigned.ID: 2} {
		if got, err := m.Task(ctx, client, task); err != nil || got.Version != version {
			t.Errorf("version = %d, %v after refusals; want %d", got.Version, err, version)
		}
	}
}

// TestOffersAgain: a withdrawn offer makes room for another one.
func TestOffersAgain(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	client, tasker := uuid.New(), uuid.New()
	task := m.post(client)
	first := m.offer(tasker, task)
	if _, err := m.Withdraw(t.Context(), tasker, task.ID, first.ID); err != nil {
		t.Fatal(err)
	}
	second := m.offer(tasker, task)
	want := map[uuid.UUID]tasks.OfferStatus{first.ID: tasks.OfferWithdrawn, second.ID: tasks.OfferPending}
	if diff := cmp.Diff(want, m.offers(client, task)); diff != "" {
		t.Errorf("offers (-want +got):\n%s", diff)
	}
	if _, err := m.Cancel(t.Context(), tasks.Command{Actor: client, Task: task.ID}); err != nil {
		t.Fatal(err)
	}
	want[second.ID] = tasks.OfferSuperseded
	if diff := cmp.Diff(want, m.offers(tasker, task)); diff != "" {
		t.Errorf("offers of a cancelled task, as their tasker (-want +got):\n%s", diff)
	}
}

// TestOneAcceptWins accepts every offer of a task at the same moment.
func TestOneAcceptWins(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	client := uuid.New()
	for range 5 {
		task := m.post(client)
		const taskers = 8
		var offers []tasks.Offer
		for range taskers {
			offers = append(offers, m.offer(uuid.New(), task))
		}
		won := make(chan tasks.Offer, taskers)
		race(t, taskers, func(i int) {
			_, err := m.Accept(t.Context(), tasks.Command{Actor: client, Task: task.ID}, offers[i].ID)
			if err == nil {
				won <- offers[i]
				return
			}
			wantCode(t, "an accept that lost", err, "illegal_transition")
		})
		close(won)
		if len(won) != 1 {
			t.Fatalf("%d accepts won", len(won))
		}
		winner := <-won
		for id, status := range m.offers(client, task) {
			want := tasks.OfferSuperseded
			if id == winner.ID {
				want = tasks.OfferAccepted
			}
			if status != want {
				t.Errorf("an offer is %s, want %s", status, want)
			}
		}
		got, err := m.Task(t.Context(), client, task.ID)
		if err != nil || got.TaskerID == nil || *got.TaskerID != winner.TaskerID || got.Version != 2 {
			t.Errorf("task = %+v, %v; want it assigned to %s, once", got, err, winner.TaskerID)
		}
		if n := len(m.log(task.ID)); n != 1+taskers+1 {
			t.Errorf("%d events, want %d", n, 1+taskers+1)
		}
	}
}

// TestRaces lets two people decide at the same moment; whichever wins, the end
// fits together.
func TestRaces(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	type outcome struct {
		task  tasks.Status
		offer tasks.OfferStatus
	}
	tests := map[string]struct {
		second     func(ctx context.Context, client, tasker uuid.UUID, task tasks.Task, offer tasks.Offer) error
		wantEither map[outcome]bool
	}{
		"accept and withdraw": {
			func(ctx context.Context, _, tasker uuid.UUID, task tasks.Task, offer tasks.Offer) error {
				_, err := m.Withdraw(ctx, tasker, task.ID, offer.ID)
				return err
			},
			map[outcome]bool{
				{tasks.StatusAssigned, tasks.OfferAccepted}: true,
				{tasks.StatusOpen, tasks.OfferWithdrawn}:    true,
			},
		},
		"accept and cancel": {
			func(ctx context.Context, client, _ uuid.UUID, task tasks.Task, _ tasks.Offer) error {
				_, err := m.Cancel(ctx, tasks.Command{Actor: client, Task: task.ID})
				return err
			},
			map[outcome]bool{
				{tasks.StatusAssigned, tasks.OfferAccepted}:    true,
				{tasks.StatusCancelled, tasks.OfferSuperseded}: true,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				client, tasker := uuid.New(), uuid.New()
				task := m.post(client)
				offer := m.offer(tasker, task)
				errs := make([]error, 2)
				race(t, 2, func(i int) {
					if i == 0 {
						_, errs[0] = m.Accept(t.Context(), tasks.Command{Actor: client, Task: task.ID}, offer.ID)
					} else {
						errs[1] = test.second(t.Context(), client, tasker, task, offer)
					}
				})
				if (errs[0] == nil) == (errs[1] == nil) {
					t.Fatalf("errors = %v: exactly one must win", errs)
				}
				wantCode(t, "the loser", errors.Join(errs...), "illegal_transition")
				got, err := m.Task(t.Context(), client, task.ID)
				if err != nil {
					t.Fatal(err)
				}
				if end := (outcome{got.Status, m.offers(client, task)[offer.ID]}); !test.wantEither[end] {
					t.Errorf("ended as %+v", end)
				}
			}
		})
	}
}

func TestOnePendingOfferUnderRace(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	client, tasker := uuid.New(), uuid.New()
	task := m.post(client)
	race(t, 8, func(int) {
		if _, err := m.MakeOffer(t.Context(), tasker, task.ID, bid); err != nil {
			wantCode(t, "a second offer", err, "offer_pending")
		}
	})
	if n := len(m.offers(client, task)); n != 1 {
		t.Errorf("%d offers, want one", n)
	}
}

// race calls f n times at the same moment.
func race(t *testing.T, n int, f func(i int)) {
	t.Helper()
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		group.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	group.Wait()
}

func TestListTasks(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	ctx, client, tasker, reader := t.Context(), uuid.New(), uuid.New(), uuid.New()
	assign := func(task tasks.Task) {
		t.Helper()
		offer := m.offer(tasker, task)
		if _, err := m.Accept(ctx, tasks.Command{Actor: client, Task: task.ID}, offer.ID); err != nil {
			t.Fatal(err)
		}
	}
	names := map[uuid.UUID]string{}
	name := func(name string, task tasks.Task) tasks.Task {
		names[task.ID] = name
		return task
	}
	name("open", m.post(client))
	assign(name("assigned", m.post(client)))
	cancelled := name("cancelled", m.post(client))
	if _, err := m.Cancel(ctx, tasks.Command{Actor: client, Task: cancelled.ID}); err != nil {
		t.Fatal(err)
	}
	name("readers", m.post(reader))

	tests := map[string]struct {
		user   uuid.UUID
		filter tasks.Filter
		want   []string
	}{
		"the client":               {client, tasks.Filter{}, []string{"readers", "cancelled", "assigned", "open"}},
		"the client's own":         {client, tasks.Filter{Mine: true}, []string{"cancelled", "assigned", "open"}},
		"the client's own, open":   {client, tasks.Filter{Mine: true, Status: tasks.StatusOpen}, []string{"open"}},
		"the tasker":               {tasker, tasks.Filter{}, []string{"readers", "assigned", "open"}},
		"the tasker's own":         {tasker, tasks.Filter{Mine: true}, []string{"assigned"}},
		"a reader":                 {reader, tasks.Filter{}, []string{"readers", "open"}},
		"a reader, assigned":       {reader, tasks.Filter{Status: tasks.StatusAssigned}, nil},
		"the client, assigned":     {client, tasks.Filter{Status: tasks.StatusAssigned}, []string{"assigned"}},
		"the tasker, assigned too": {tasker, tasks.Filter{Status: tasks.StatusAssigned}, []string{"assigned"}},
		"somebody else":            {uuid.New(), tasks.Filter{}, []string{"readers", "open"}},
		"somebody else's own":      {uuid.New(), tasks.Filter{Mine: true}, nil},
	}
	for label, test := range tests {
		t.Run(label, func(t *testing.T) {
			for _, limit := range []int{1, 2, 100} {
				var got []string
				page := tasks.Page{Limit: limit}
				for {
					found, more, err := m.Tasks(ctx, test.user, test.filter, page)
					if err != nil {
						t.Fatal(err)
					}
					for _, task := range found {
						got = append(got, names[task.ID])
					}
					if !more {
						break
					}
					page.Before = found[len(found)-1].ID
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("by pages of %d (-want +got):\n%s", limit, diff)
				}
			}
		})
	}
}

// TestConstraints writes past the domain what it would never write.
func TestConstraints(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	client := uuid.New()
	task := m.post(client)
	first, second := m.offer(uuid.New(), task), m.offer(uuid.New(), task)
	tests := map[string]struct {
		sql  string
		args []any
		want string
	}{
		"work without a tasker": {"UPDATE tasks SET status = 'in_progress' WHERE id = $1", []any{task.ID}, "tasks_tasker_fits_status"},
		"an open task taken":    {"UPDATE tasks SET tasker_id = $2 WHERE id = $1", []any{task.ID, uuid.New()}, "tasks_tasker_fits_status"},
		"hiring oneself":        {"UPDATE tasks SET status = 'assigned', tasker_id = client_id WHERE id = $1", []any{task.ID}, "tasks_two_people"},
		"an unknown status":     {"UPDATE tasks SET status = 'lost' WHERE id = $1", []any{task.ID}, "tasks_status_check"},
		"two accepted offers":   {"UPDATE offers SET status = 'accepted' WHERE id IN ($1, $2)", []any{first.ID, second.ID}, "offers_one_accepted"},
	}
	for name, test := range tests {
		_, err := m.pool.Exec(t.Context(), test.sql, test.args...)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.ConstraintName != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	_, err := m.Post(ctx, uuid.New(), lawn)
	wantCode(t, "post", err, "database_unavailable")
	if diff := cmp.Diff(map[string]int{">open failed": 1}, m.seen.counts); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
}

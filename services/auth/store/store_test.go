package store_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/auth"
	"github.com/marketplane/marketplane/services/auth/store"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$a2V5"

var now = time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)

func open(t *testing.T) (*store.Store, *pgxpool.Pool) {
	t.Helper()
	db := testkit.NewDatabase(t, map[string]fs.FS{"auth": store.Migrations()})
	pool := db.Pool(t, "auth")
	return store.New(pool), pool
}

func user(email string) auth.User {
	return auth.User{ID: uuid.Must(uuid.NewV7()), Email: email, DisplayName: "Ann", CreatedAt: now}
}

func session(of uuid.UUID) auth.Session {
	return auth.Session{
		ID: uuid.Must(uuid.NewV7()), UserID: of, Counter: 1, Secret: [32]byte{1, 2, 3},
		CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
}

func create(t *testing.T, s *store.Store, u auth.User, first auth.Session) {
	t.Helper()
	if err := s.CreateAccount(t.Context(), u, hash, first, registered(u)); err != nil {
		t.Fatal(err)
	}
}

func registered(u auth.User) events.Event {
	return events.Event{Subject: u.ID, Data: events.UserRegistered{UserID: u.ID, DisplayName: u.DisplayName}}
}

func ended(s auth.Session, reason string) events.Event {
	return events.Event{Subject: s.ID, Data: events.SessionEnded{SessionID: s.ID, UserID: s.UserID, Reason: reason}}
}

// load shows a session as it is stored.
func load(t *testing.T, s *store.Store, id uuid.UUID) auth.Session {
	t.Helper()
	var got auth.Session
	err := s.ChangeSession(t.Context(), id, func(current *auth.Session) []events.Event {
		got = *current
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func eventsOf(t *testing.T, pool *pgxpool.Pool, kind string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "SELECT data FROM events WHERE type = $1 ORDER BY xid, position", kind)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var data json.RawMessage
		if err := rows.Scan(&data); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(data))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	s, pool := open(t)
	ctx := t.Context()
	ann := user("Ann@Example.com")
	first := session(ann.ID)
	create(t, s, ann, first)

	found, err := s.Credentials(ctx, "aNN@example.COM")
	if diff := cmp.Diff(auth.Credentials{UserID: ann.ID, PasswordHash: hash}, found); err != nil || diff != "" {
		t.Errorf("credentials: %v (-want +got):\n%s", err, diff)
	}
	got, err := s.User(ctx, ann.ID)
	if diff := cmp.Diff(ann, got); err != nil || diff != "" {
		t.Errorf("user: %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(first, load(t, s, first.ID)); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}

	// A refused registration leaves nothing behind.
	other := user("ann@example.com")
	if err := s.CreateAccount(ctx, other, hash, session(other.ID), registered(other)); !errors.Is(err, auth.ErrEmailTaken) {
		t.Errorf("a second account by another case: %v, want ErrEmailTaken", err)
	}
	if n := len(eventsOf(t, pool, events.TypeUserRegistered)); n != 1 {
		t.Errorf("%d registrations told, want 1", n)
	}

	missing := uuid.New()
	_, err1 := s.Credentials(ctx, "bob@example.com")
	_, err2 := s.User(ctx, missing)
	err3 := s.CreateSession(ctx, session(missing))
	err4 := s.ChangeSession(ctx, missing, func(*auth.Session) []events.Event { t.Error("called"); return nil })
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("missing thing %d: %v, want ErrNotFound", i+1, err)
		}
	}
}

// One of many registrations of one email at once wins.
func TestConcurrentRegistration(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			u := user("ann@example.com")
			errs[i] = s.CreateAccount(t.Context(), u, hash, session(u.ID), registered(u))
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, auth.ErrEmailTaken):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d registrations won, want 1", won)
	}
}

func TestChangeSession(t *testing.T) {
	t.Parallel()
	s, pool := open(t)
	ctx := t.Context()
	ann := user("ann@example.com")
	create(t, s, ann, session(ann.ID))
	second := session(ann.ID)
	if err := s.CreateSession(ctx, second); err != nil {
		t.Fatal(err)
	}

	want := second
	want.Counter, want.LateRepeats = 7, 3
	want.RotatedAt, want.RepeatedAt, want.ExpiresAt = now.Add(1), now.Add(2*time.Second), now.Add(time.Minute)
	want.RotatedAt = want.RotatedAt.Truncate(time.Microsecond)
	want.EndedAt, want.EndReason = now.Add(time.Second), "logged_out"
	err := s.ChangeSession(ctx, second.ID, func(current *auth.Session) []events.Event {
		*current = want
		return []events.Event{ended(want, "logged_out")}
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, load(t, s, second.ID)); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}
	if n := len(eventsOf(t, pool, events.TypeSessionEnded)); n != 1 {
		t.Errorf("%d ends told, want 1", n)
	}
}

// The lock makes each change see the one before it.
func TestChangeSessionIsSerial(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	ann := user("ann@example.com")
	first := session(ann.ID)
	create(t, s, ann, first)
	const n = 20
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			err := s.ChangeSession(t.Context(), first.ID, func(current *auth.Session) []events.Event {
				current.Counter++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := load(t, s, first.ID).Counter; got != 1+n {
		t.Errorf("counter = %d after %d changes from 1", got, n)
	}
}

func TestSweeps(t *testing.T) {
	t.Parallel()
	s, pool := open(t)
	ctx := t.Context()
	ann := user("ann@example.com")
	live := session(ann.ID)
	create(t, s, ann, live)
	for i := range 5 {
		old := session(ann.ID)
		old.ExpiresAt = now.Add(-time.Duration(i) * time.Minute)
		if err := s.CreateSession(ctx, old); err != nil {
			t.Fatal(err)
		}
	}
	end := func(current *auth.Session) []events.Event {
		current.EndedAt, current.EndReason = now, "expired"
		return []events.Event{ended(*current, "expired")}
	}
	for i, want := range []int{3, 2, 0} {
		if got, err := s.ChangeExpired(ctx, now, 3, end); err != nil || got != want {
			t.Errorf("sweep %d: %d, %v; want %d", i, got, err, want)
		}
	}
	if n := len(eventsOf(t, pool, events.TypeSessionEnded)); n != 5 {
		t.Errorf("%d ends told, want 5", n)
	}
	for i, want := range []int{3, 2, 0} {
		if got, err := s.DeleteEnded(ctx, now.Add(time.Hour), 3); err != nil || got != want {
			t.Errorf("deletion %d: %d, %v; want %d", i, got, err, want)
		}
	}
	if diff := cmp.Diff(live, load(t, s, live.ID)); diff != "" {
		t.Errorf("the live session (-want +got):\n%s", diff)
	}
}

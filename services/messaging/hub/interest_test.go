package hub_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging/hub"
)

func TestInterest(t *testing.T) {
	t.Parallel()
	server := testkit.NewBus(t)
	subjects := events.SubjectsOf(uuid.NewString())
	own, other := testkit.ConnectBus(t, server), testkit.ConnectBus(t, server)
	interest := hub.NewInterest(own, subjects)

	here, elsewhere, left := uuid.New(), uuid.New(), uuid.New()
	log := slog.New(slog.DiscardHandler)
	near, far := hub.NewNATS(own, subjects, log), hub.NewNATS(other, subjects, log)
	for user, bus := range map[uuid.UUID]*hub.NATS{here: near, elsewhere: far, left: far} {
		cancel, err := bus.Subscribe(user)
		if err != nil {
			t.Fatal(err)
		}
		if user == left {
			cancel()
		}
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	users := []uuid.UUID{here, elsewhere, left}
	for range 997 {
		users = append(users, uuid.New())
	}
	for range 20 {
		absent, err := interest.Absent(ctx, users)
		if err != nil {
			t.Fatal(err)
		}
		for i, user := range users {
			if absent[user] != (i >= 2) {
				t.Fatalf("user %d: absent is %t", i, absent[user])
			}
		}
	}

	// A bus that does not say that nobody listens tells nothing.
	everyone, err := other.Subscribe(subjects.User(uuid.Nil)[:len(subjects.User(uuid.Nil))-len(uuid.Nil.String())]+"*", func(*nats.Msg) {})
	if err = errors.Join(err, other.Flush()); err != nil {
		t.Fatal(err)
	}
	if absent, err := interest.Absent(ctx, users); err == nil {
		t.Errorf("everyone is connected, it seems: %d are absent", len(absent))
	}
	if err := errors.Join(everyone.Unsubscribe(), other.Flush()); err != nil {
		t.Fatal(err)
	}

	if err := server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if absent, err := interest.Absent(ctx, users); err == nil {
		t.Errorf("without a bus: %v", absent)
	}
}

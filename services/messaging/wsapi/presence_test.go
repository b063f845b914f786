package wsapi_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/marketplane/marketplane/services/messaging/presence"
)

// statuses are what the peer was told of a user, from the first on.
func statuses(events []object, of string) []string {
	var out []string
	for _, e := range events {
		if e.UserID.String() == of {
			out = append(out, e.Status)
		}
	}
	return out
}

func TestPresenceAcrossPods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.newPod(podOptions{}), w.newPod(podOptions{})
	p, strangers := w.Open(), w.Open()
	tasker := a.connect(t, p.Tasker, "")
	client := b.connect(t, p.Client, "")
	stranger := a.connect(t, strangers.Client, "")
	quiet := b.connect(t, strangers.Tasker, "")
	// The bus knows what both pods listen to: signals that come before are lost.
	if err := errors.Join(a.Conn.FlushTimeout(patience), b.Conn.FlushTimeout(patience)); err != nil {
		t.Fatal(err)
	}

	if r := tasker.call(map[string]any{"op": "presence", "status": "online"}); r.OK == nil {
		t.Fatalf("presence: %+v", r.Error)
	}
	stranger.call(map[string]any{"op": "presence", "status": "online"})
	if got := client.waitEvents("presence", 1)[0]; got.UserID != p.Tasker || got.Status != "online" || got.Cursor != "" {
		t.Errorf("the client was told %+v", got)
	}
	// Who announces hears of who is there already.
	client.call(map[string]any{"op": "presence", "status": "away"})
	if got := statuses(client.waitEvents("presence", 2), p.Tasker.String()); !slices.Equal(got, []string{"online", "online"}) {
		t.Errorf("the client was told that the tasker is %q", got)
	}
	if got := statuses(tasker.waitEvents("presence", 1), p.Client.String()); !slices.Equal(got, []string{"away"}) {
		t.Errorf("the tasker was told that the client is %q", got)
	}
	// A pod that ends tells of those who did not come back.
	a.stop()
	if got := statuses(client.waitEvents("presence", 3), p.Tasker.String()); !slices.Equal(got, []string{"online", "online", "offline"}) {
		t.Errorf("the client was told that the tasker is %q", got)
	}
	// Nobody but those who share a conversation hears of it; who never announced
	// themselves hears all the same.
	if got := quiet.waitEvents("presence", 2); len(statuses(got, strangers.Client.String())) != len(got) {
		t.Errorf("told of others: %+v", got)
	}
}

func TestPresenceIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.newPod(podOptions{})
	p := w.Open()
	early := a.dial(t)
	go early.read()
	early.wantRefused(map[string]any{"op": "presence", "status": "online"}, "unauthenticated")
	c := a.connect(t, p.Client, "")
	for _, status := range []any{presence.Offline.String(), "busy", 1, nil} {
		c.wantRefused(map[string]any{"op": "presence", "status": status}, "invalid")
	}
	c.wantRefused(map[string]any{"op": "presence"}, "missing_field")
	c.wantRefused(map[string]any{"op": "presence", "status": "online", "user_id": p.Tasker}, "unknown_field")
}

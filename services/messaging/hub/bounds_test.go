package hub

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// One user holds no more than a share of a process: another connection of theirs
// is refused for now, and leaves nothing; everybody else's are taken.
func TestAUsersConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		var wires []*fakeWire
		for range defaultMaxLinksOfUser {
			wire, _ := w.connect(t, user, nil)
			wires = append(wires, wire)
		}
		refused := &fakeWire{}
		link, err := w.Admit(refused)
		if err != nil {
			t.Fatal(err)
		}
		refused.link = link
		_, err = link.Attach(t.Context(), user, uuid.New(), nil)
		if f := fault.From(err); !errors.Is(err, errUserFull) || f.Kind != fault.TooMany || f.RetryAfter == 0 {
			t.Errorf("one connection too many: %v", err)
		}
		if load := w.Load(); load.Live != defaultMaxLinksOfUser || load.Pending != 1 || len(w.sessions) != defaultMaxLinksOfUser {
			t.Errorf("load %+v, %d sessions", load, len(w.sessions))
		}
		w.connect(t, uuid.New(), nil)

		wires[0].link.Leave()
		if _, err := link.Attach(t.Context(), user, uuid.New(), nil); err != nil {
			t.Errorf("after one has left: %v", err)
		}
		link.Start()
		w.arrive(t, w.store.add(user, 1)...)
		refused.want(t, 1)
	})
}

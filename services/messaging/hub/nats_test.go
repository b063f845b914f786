package hub

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// Two installations on one bus never meet, though they follow a user of the
// same id, and though the id of one begins with that of the other.
func TestInstallationsOnOneBusNeverMeet(t *testing.T) {
	server := testkit.NewBus(t)
	user := uuid.Must(uuid.NewV7())
	type installation struct {
		name     string
		subjects events.Subjects
		conn     *nats.Conn
		live     *NATS
		wake     chan *nats.Msg
	}
	var all []installation
	for _, name := range []string{"0197a2f3-0000-7000-8000-00000000000a", "0197a2f3-0000-7000-8000-00000000000b", "0197a2f3"} {
		i := installation{
			name: name, subjects: events.SubjectsOf(name), conn: testkit.ConnectBus(t, server), wake: make(chan *nats.Msg, 16),
		}
		i.live = NewNATS(i.conn, i.subjects, testkit.Logger(t))
		cancel, err := i.live.Subscribe(user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cancel)
		if _, err := i.conn.ChanSubscribe(i.subjects.Wake(), i.wake); err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	// Once the server has answered a ping, it has taken what was sent before; what
	// it had for a connection before its answer is in the channels.
	flush := func() {
		for _, i := range all {
			if err := i.conn.FlushTimeout(10 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	flush()

	for _, publisher := range all {
		if err := publisher.live.Publish(user, []byte("news")); err != nil {
			t.Fatal(err)
		}
		if err := publisher.conn.Publish(publisher.subjects.Wake(), []byte("wake")); err != nil {
			t.Fatal(err)
		}
		flush()
		flush()
		var got []string
		for _, i := range all {
			for _, messages := range []<-chan *nats.Msg{i.live.Messages(), i.wake} {
				for len(messages) > 0 {
					got = append(got, i.name+": "+string((<-messages).Data))
				}
			}
		}
		if diff := cmp.Diff([]string{publisher.name + ": news", publisher.name + ": wake"}, got); diff != "" {
			t.Errorf("who got what %s published (-want +got):\n%s", publisher.name, diff)
		}
	}
}

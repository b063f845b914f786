package wsapi_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

// metric is the value of a counter or a gauge without labels.
func (p *pod) metric(name string) float64 {
	p.w.T.Helper()
	families, err := p.Registry.Gather()
	if err != nil {
		p.w.T.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			metric := family.GetMetric()[0]
			return metric.GetCounter().GetValue() + metric.GetGauge().GetValue() // one of them is there
		}
	}
	p.w.T.Fatalf("there is no metric %s", name)
	return 0
}

// Who has as many connections as a user may have is told to come back, and does
// on the same socket.
func TestAUsersSocketsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{hub: hub.Options{MaxLinksOfUser: 2}})
	user := uuid.New()
	first := pod.connect(t, user, "")
	pod.connect(t, user, "")
	pod.connect(t, uuid.New(), "")
	third := pod.dial(t)
	go third.read()
	auth := map[string]any{"op": "auth", "token": w.Tokens.Issue(t, user, uuid.New())}
	if r := third.wantRefused(auth, "too_many_connections"); !r.Error.Temporary || r.Error.RetryMS == 0 {
		t.Errorf("refused with %+v", r.Error)
	}
	_ = first.ws.CloseNow()
	podtest.WaitUntil(t, "the first is gone", func() bool { return pod.Hub.Load().Live == 2 })
	if r := third.call(auth); r.OK == nil {
		t.Errorf("after one has left: %+v", r.Error)
	}
}

// A client that has much to read gets no signals on top, and the others do.
func TestSignalsAreDroppedForWhoHasMuchToRead(t *testing.T) {
	t.Parallel()
	const maxQueued = 256 << 10
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: wsapi.Options{MaxQueued: maxQueued}})
	user := uuid.New()
	pod.connectDeaf(t, user)
	reader := pod.connect(t, user, "")
	typing, err := messaging.TypingSignal(uuid.New(), uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	pod.Hub.Signal([]uuid.UUID{user}, typing)
	reader.waitEvents("typing", 1)
	if n := pod.metric("marketplane_messaging_ws_signals_dropped_total"); n != 0 {
		t.Fatalf("%v signals are dropped before there is anything to read", n)
	}
	// Beyond half of its queue there is no room, and beyond all of it the deaf
	// one would be closed. What the reader has not taken yet is less than the
	// difference.
	body := []byte(`{"text":"` + strings.Repeat("x", 16<<10) + `"}`)
	sent := 0
	for pod.metric("marketplane_messaging_ws_queued_bytes") < maxQueued*3/4 {
		sent++
		pod.Hub.Announce([]messaging.Item{{
			UserID: user, Offset: int64(sent), Kind: messaging.KindMessage,
			Payload: messaging.MessagePayload(messaging.Message{
				ConversationID: uuid.New(), Seq: int64(sent), ID: uuid.New(), ClientID: uuid.New(), SenderID: uuid.New(), Body: body, SentAt: time.Now(),
			}),
		}})
		reader.waitEvents("message", sent)
	}
	pod.Hub.Signal([]uuid.UUID{user}, typing)
	reader.waitEvents("typing", 2)
	if n := pod.metric("marketplane_messaging_ws_signals_dropped_total"); n != 1 {
		t.Errorf("%v signals are dropped, want the deaf one's", n)
	}
	if pod.closes(wsapi.CodeSlowConsumer) != 0 {
		t.Error("the deaf one is closed: this shows nothing")
	}
}

// However connections end, the bus is not asked for their users' news any more.
func TestSubscriptionsGoWithTheirConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	base := pod.Conn.NumSubscriptions()
	const connections = 120
	session := uuid.New()
	peers := make([]*peer, connections)
	for i := range peers {
		user := uuid.New()
		if i%4 != 3 {
			peers[i] = pod.connect(t, user, "")
			continue
		}
		peers[i] = pod.dial(t)
		go peers[i].read()
		if r := peers[i].auth(w.Tokens.Issue(t, user, session), ""); r.OK == nil {
			t.Fatalf("auth: %+v", r.Error)
		}
	}
	if n := pod.Conn.NumSubscriptions(); n != base+connections {
		t.Errorf("%d subscriptions, want one for each of %d users beside %d", n, connections, base)
	}
	var errs error
	for i, c := range peers {
		switch i % 4 {
		case 0:
			_ = c.ws.CloseNow()
		case 1:
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
		case 2:
			errs = errors.Join(errs, c.write("{"))
		}
	}
	if errs != nil {
		t.Error(errs)
	}
	pod.Hub.EndSession(session)
	podtest.WaitUntil(t, fmt.Sprintf("there are %d subscriptions again", base), func() bool {
		load := pod.Hub.Load()
		return load.Live+load.Pending == 0 && pod.Conn.NumSubscriptions() == base
	})
}

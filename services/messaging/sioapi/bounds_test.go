package sioapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
)

// raw is a client on WebSocket that does what the test says, and nothing else.
type raw struct {
	t  testing.TB
	ws *websocket.Conn
}

// dial opens a connection, and reads OPEN.
func (p *pod) dial(t testing.TB) (*raw, error) {
	t.Helper()
	url := "ws" + strings.TrimPrefix(p.server.URL, "http") + sioapi.Path + "?EIO=4&transport=websocket"
	ws, _, err := websocket.Dial(t.Context(), url, nil) //nolint:bodyclose // the library closes it
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	r := &raw{t, ws}
	_, err = r.read("0{")
	return r, err
}

// read reads on until a packet begins with a text.
func (r *raw) read(begin string) (string, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for {
		_, packet, err := r.ws.Read(ctx)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(string(packet), begin) {
			return string(packet), nil
		}
	}
}

func (r *raw) write(packet string) error {
	return r.ws.Write(r.t.Context(), websocket.MessageText, []byte(packet))
}

// connect connects to the namespace, and returns the answer.
func (r *raw) connect(auth map[string]any) (string, error) {
	r.t.Helper()
	text, err := json.Marshal(auth)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.write("40" + string(text)); err != nil {
		return "", err
	}
	return r.read("4")
}

// enter dials and connects a user, and returns the pid.
func (p *pod) enter(t testing.TB, auth map[string]any) (r *raw, pid string) {
	t.Helper()
	r, err := p.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.ws.CloseNow() })
	answer, err := r.connect(auth)
	if err != nil || !strings.HasPrefix(answer, "40{") {
		t.Fatalf("%q, %v", answer, err)
	}
	var fields struct{ PID string }
	if err := json.Unmarshal([]byte(answer[2:]), &fields); err != nil {
		t.Fatal(err)
	}
	return r, fields.PID
}

func (w *world) auth(user uuid.UUID) map[string]any {
	return map[string]any{"token": w.Tokens.Issue(w.T, user, uuid.New())}
}

// Who reads nothing is closed, comes back and is recovered; nobody else waits for
// who reads nothing: the other one has each message before the next is sent.
func TestASlowReaderIsClosedAndRecovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	auth := w.auth(p.Tasker)
	_, pid := pod.enter(t, auth)
	w.Enter("client", pod.server.URL, w.options(p.Client, webSocket))
	text := strings.Repeat("x", 12_000)
	slow := func() float64 {
		return pod.Metric("marketplane_messaging_socketio_closes_total", "reason", "slow consumer")
	}
	sent := 0
	for slow() == 0 && sent < 3000 {
		sent++
		if a := w.ask("client", "send", sendFields(p.Conversation, map[string]any{"n": sent, "text": text})); !a.OK {
			t.Fatalf("%+v", a.Error)
		}
		if m := w.hears("client", "message"); m.Seq != int64(sent) {
			t.Fatalf("the other one's message %d has seq %d", sent, m.Seq)
		}
	}
	if slow() != 1 {
		t.Fatalf("%v are closed after %d messages", slow(), sent)
	}
	auth["pid"] = pid
	back, again := pod.enter(t, auth)
	if again != pid {
		t.Fatalf("it was not recovered")
	}
	for n := 1; n <= sent; n++ {
		packet, err := back.read(`42["message",`)
		if err != nil || !strings.Contains(packet, fmt.Sprintf(`"seq":%d,`, n)) {
			t.Fatalf("message %d is %.200s, %v", n, packet, err)
		}
	}
}

// A client that has much to read gets no signals on top.
func TestSignalsAreDroppedForWhoHasMuchToRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	user := uuid.New()
	pod.enter(t, w.auth(user))
	typing, err := messaging.TypingSignal(uuid.New(), uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"text":"` + strings.Repeat("x", 16<<10) + `"}`)
	const maxQueued = 256 << 10
	// Until what waits is stuck, as the kernel takes no more.
	full := func() bool { return pod.Metric("marketplane_messaging_socketio_queued_bytes") >= maxQueued*3/4 }
	stuck := func() bool {
		for range 20 {
			if !full() {
				return false
			}
			<-time.After(10 * time.Millisecond)
		}
		return true
	}
	for sent := int64(1); !stuck(); sent++ {
		pod.Hub.Announce([]messaging.Item{{
			UserID: user, Offset: sent, Kind: messaging.KindMessage,
			Payload: messaging.MessagePayload(messaging.Message{
				ConversationID: uuid.New(), Seq: sent, ID: uuid.New(), ClientID: uuid.New(), SenderID: uuid.New(), Body: body, SentAt: time.Now(),
			}),
		}})
	}
	pod.Hub.Signal([]uuid.UUID{user}, typing)
	podtest.WaitUntil(t, "it is dropped", func() bool { return pod.Metric("marketplane_messaging_socketio_signals_dropped_total") == 1 })
}

// One user has no more connections than he may have. The next one is closed, and not
// refused, as it may come back.
func TestAUsersConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{hub: hub.Options{MaxLinksOfUser: 2}})
	user := uuid.New()
	first, _ := pod.enter(t, w.auth(user))
	pod.enter(t, w.auth(user))
	third, err := pod.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := third.connect(w.auth(user))
	if websocket.CloseStatus(err) == -1 {
		t.Errorf("the third one: %q, %v", answer, err)
	}
	_ = first.ws.CloseNow()
	podtest.WaitUntil(t, "the first is gone", func() bool { return pod.Hub.Load().Live == 1 })
	pod.enter(t, w.auth(user))
	if load := pod.Hub.Load(); load.Live != 2 || load.Pending != 0 {
		t.Errorf("%+v", load)
	}
}

// after is what follows a text.
func after(t *testing.T, from io.Reader, text string) io.Reader {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(from, b); err != nil || string(b) != text {
		t.Fatalf("%q, %v", b, err)
	}
	return from
}

// Who is not let in yet can send as much at once as on the native door, and no more,
// by either transport.
func TestStrangersSendLittle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	long := strings.Repeat("x", 100_000)
	r, err := pod.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.ws.CloseNow() }()
	if err := r.write(`40{"token":"` + long + `"}`); err != nil {
		t.Fatal(err)
	}
	if answer, err := r.read(""); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("%.100q, %v", answer, err)
	}
	known, _ := pod.enter(t, w.auth(uuid.New()))
	if err := known.write(`420["` + long + `",{}]`); err != nil {
		t.Fatal(err)
	}
	if answer, err := known.read("430["); err != nil || !strings.Contains(answer, "unknown_op") {
		t.Errorf("who is let in: %q, %v", answer, err)
	}

	url := pod.server.URL + sioapi.Path + "?EIO=4&transport=polling"
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	var open struct{ SID string }
	err = json.NewDecoder(after(t, response.Body, "0")).Decode(&open)
	_ = response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	response, err = http.Post(url+"&sid="+open.SID, "text/plain", strings.NewReader(`40{"token":"`+long+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("polling: %s", response.Status)
	}
}

// A socket that is left, and another one on its connection, have one rate.
func TestARateIsTheConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: sioapi.Options{Door: door.Options{Rate: messaging.Rate{PerSecond: 0.001, Burst: 3}}}})
	user := uuid.New()
	r, _ := pod.enter(t, w.auth(user)) // which is one
	for _, packet := range []string{`420["typing",{}]`, "41"} {
		if err := r.write(packet); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := r.connect(w.auth(user)); err != nil || !strings.HasPrefix(answer, "43") {
		t.Errorf("%q, %v", answer, err)
	}
	if answer, err := r.read("40{"); err != nil {
		t.Errorf("again: %q, %v", answer, err)
	}
	if err := r.write(`421["typing",{}]`); err != nil {
		t.Fatal(err)
	}
	if answer, err := r.read("431["); err != nil || !strings.Contains(answer, "rate_limited") {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestConnectsAreBoundedByAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: sioapi.Options{
		Addresses: door.NewAddresses(messaging.Rate{PerSecond: 0.001, Burst: 2}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
	}})
	from := func(address string) (status int, retryAfter string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, pod.server.URL+sioapi.Path+"?EIO=4&transport=polling", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", address)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode, response.Header.Get("Retry-After")
	}
	for i, want := range []int{200, 200, 429} {
		if got, retryAfter := from("192.0.2.1"); got != want || (got == 429) != (retryAfter != "") {
			t.Errorf("connection %d: status %d, Retry-After %q", i, got, retryAfter)
		}
	}
	if got, _ := from("192.0.2.2"); got != 200 {
		t.Errorf("another address: status %d", got)
	}
}

// A connection lives with its session: its token may expire.
func TestATokenMayExpireOnALiveConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	w.Enter("c", pod.server.URL, w.options(p.Client))
	old := w.options(p.Client)
	w.Tokens.Later(24 * time.Hour)
	w.Connect("late", pod.server.URL, old)
	if refused := w.refusal("late"); refused.Code != "token_expired" {
		t.Errorf("late: %+v", refused)
	}
	if a := w.ask("c", "send", sendFields(p.Conversation, map[string]any{"a": 1})); !a.OK {
		t.Errorf("%+v", a.Error)
	}
}

// Pages of the allowed origins and of the own host may connect, by both transports.
func TestOrigins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: sioapi.Options{AllowedOrigins: []string{"https://app.example.com"}}})
	for origin, want := range map[string]bool{
		"": true, "https://app.example.com": true, pod.server.URL: true, "https://evil.example.com": false, "null": false,
	} {
		for _, transport := range []string{"polling", "websocket"} {
			r := testkit.Upgrade(t, pod.server.URL+sioapi.Path+"?EIO=4&transport="+transport, "")
			if transport == "polling" {
				r.Header = http.Header{}
			}
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if allowed := response.StatusCode < 300; allowed != want {
				t.Errorf("%s of %q: %s", transport, origin, response.Status)
			}
			if got := response.Header.Get("Access-Control-Allow-Origin"); transport == "polling" && want && got != origin {
				t.Errorf("%q may read: %q", origin, got)
			}
		}
	}
}

// Two thousand clients connect, work, and go in every way to go, and leave nothing.
func TestTwoThousandConnectionsLeaveNothingBehind(t *testing.T) {
	// Not parallel: it counts goroutines, and weighs the heap.
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	subscriptions := pod.Conn.NumSubscriptions()
	settle := func() {
		podtest.WaitUntil(t, "every connection is gone", func() bool {
			load := pod.Hub.Load()
			return load.Live+load.Pending == 0 &&
				pod.Metric("marketplane_messaging_socketio_sessions", "transport", "websocket") == 0
		})
	}
	testkit.LeavesNothing(t, 2000, 4<<20, settle, func(i int) error {
		r, err := pod.dial(t)
		if err != nil {
			return err
		}
		defer func() { _ = r.ws.CloseNow() }()
		if i%5 == 0 {
			return nil // before it is connected
		}
		if i%5 == 1 { // while it is being let in
			return r.write(`40{"token":"` + w.Tokens.Issue(t, uuid.New(), uuid.New()) + `"}`)
		}
		if answer, err := r.connect(w.auth(uuid.New())); err != nil || !strings.HasPrefix(answer, "40") {
			return fmt.Errorf("%s, %w", answer, err)
		}
		if err := r.write(`420["presence",{"status":"online"}]`); err != nil {
			return err
		}
		if i%5 == 2 { // in the middle of a command
			return nil
		}
		if _, err := r.read("430["); err != nil {
			return err
		}
		if i%5 == 3 {
			_ = r.write("41")
			return nil
		}
		_ = r.ws.Close(websocket.StatusNormalClosure, "")
		return nil
	})
	if n := pod.Conn.NumSubscriptions(); n != subscriptions {
		t.Errorf("%d subscriptions, %d before", n, subscriptions)
	}
}

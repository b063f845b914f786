package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/notify"
	"github.com/marketplane/marketplane/services/messaging/store"
	"github.com/marketplane/marketplane/services/messaging/webhook"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// world is a real database, a real bus and a real HTTP server.
type world struct {
	t        *testing.T
	pool     *pgxpool.Pool
	past     *store.Store // writes messages as if some time ago
	subjects events.Subjects
	conn     *nats.Conn
	bus      *hub.NATS // on conn
	reach    *hub.Interest
	keyFile  string
	server   *httptest.Server

	// hold, while it is set, keeps requests waiting.
	hold  atomic.Pointer[chan struct{}]
	taken chan request
	// unsigned tells of a request that was not signed with the key.
	unsigned chan struct{}
}

type request struct {
	ID   string
	Type string `json:"type"`
	Data struct {
		UserID         uuid.UUID `json:"user_id"`
		ConversationID uuid.UUID `json:"conversation_id"`
		Seq            int64     `json:"seq"`
		Unread         int       `json:"unread"`
	} `json:"data"`
}

var key = contract.WebhookKeyPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))

func newWorld(t *testing.T) *world {
	t.Helper()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()})
	server := testkit.NewBus(t)
	log := testkit.Logger(t)
	w := &world{
		t: t, pool: database.Pool(t, contract.ComponentMessaging),
		subjects: events.SubjectsOf(database.Installation),
		keyFile:  filepath.Join(t.TempDir(), "key"),
		taken:    make(chan request, 1000),
		unsigned: make(chan struct{}, 1),
	}
	w.past = store.New(w.pool, func() time.Time { return time.Now().Add(-2 * time.Minute) })
	w.conn = testkit.ConnectBus(t, server)
	w.bus = hub.NewNATS(w.conn, w.subjects, log)
	w.reach = hub.NewInterest(testkit.ConnectBus(t, server), w.subjects)
	w.putKey(key)
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)

	// As if notifications had begun long before the messages.
	if _, err := w.past.Notifier().State(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.goBack()
	return w
}

// goBack makes the next process look at everything once more.
func (w *world) goBack() {
	w.t.Helper()
	w.exec("UPDATE notifier SET soon_at = soon_at - interval '1 hour', late_at = late_at - interval '1 hour'")
}

func (w *world) exec(sql string) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) putKey(content string) {
	w.t.Helper()
	if err := os.WriteFile(w.keyFile, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// serve takes what is signed with the key.
func (w *world) serve(answer http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender is gone
	}
	if held := w.hold.Load(); held != nil {
		select {
		case <-*held:
		case <-r.Context().Done():
			return
		}
	}
	mac := hmac.New(sha256.New, []byte(strings.Repeat("k", 32)))
	mac.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + string(body)))
	signature := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if !slices.Contains(strings.Fields(r.Header.Get("webhook-signature")), signature) {
		answer.WriteHeader(http.StatusServiceUnavailable) // the receiver is to learn the key yet
		select {
		case w.unsigned <- struct{}{}:
		default:
		}
		return
	}
	got := request{ID: r.Header.Get("webhook-id")}
	if err := json.Unmarshal(body, &got); err != nil {
		w.t.Error(err)
	}
	w.taken <- got
}

// open makes a conversation of two.
func (w *world) open() (conversation, client, tasker uuid.UUID) {
	w.t.Helper()
	client, tasker = uuid.New(), uuid.New()
	data, err := json.Marshal(events.OfferMade{TaskID: uuid.New(), OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"})
	if err != nil {
		w.t.Fatal(err)
	}
	inbox := w.past.NewInbox(func([]messaging.Item) {})
	if err := postgres.InTx(w.t.Context(), w.pool, func(tx pgx.Tx) error {
		return inbox.Handle(w.t.Context(), tx, []events.Record{{Type: events.TypeOfferMade, Data: data}})
	}); err != nil {
		w.t.Fatal(err)
	}
	found, err := w.past.Conversations(w.t.Context(), messaging.ConversationQuery{UserID: client, Limit: 1})
	if err != nil || len(found) != 1 {
		w.t.Fatal(found, err)
	}
	return found[0].ID, client, tasker
}

func (w *world) send(conversation, sender uuid.UUID) {
	w.t.Helper()
	outcomes, _, err := w.past.Write(w.t.Context(), []messaging.Draft{{
		ConversationID: conversation, SenderID: sender, ClientID: uuid.New(), Body: json.RawMessage(`{"text":"hello"}`),
	}})
	if err = errors.Join(err, outcomes[0].Err); err != nil {
		w.t.Fatal(err)
	}
}

// waitNotified waits until it is written down that n members were notified.
func (w *world) waitNotified(n int) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var got int
		if err := w.pool.QueryRow(w.t.Context(), "SELECT count(*) FROM notified").Scan(&got); err != nil {
			w.t.Fatal(err)
		}
		if got >= n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%d of %d are written down", got, n)
		}
	}
}

// severable is a store that a process can be cut off from.
type severable struct {
	store.Notifier
	cut atomic.Bool
}

var errCut = errors.New("cut off")

func (s *severable) State(ctx context.Context) (notify.State, error) {
	if s.cut.Load() {
		return notify.State{}, errCut
	}
	return s.Notifier.State(ctx)
}

func (s *severable) Record(ctx context.Context, holder uuid.UUID, lease time.Duration, sent []notify.Notification) error {
	if s.cut.Load() {
		return errCut
	}
	return s.Notifier.Record(ctx, holder, lease, sent)
}

func (s *severable) Release(ctx context.Context, holder uuid.UUID) error {
	if s.cut.Load() {
		return errCut
	}
	return s.Notifier.Release(ctx, holder)
}

// start starts a process that notifies, and returns how to stop it.
func (w *world) start(cut *severable) (stop func()) {
	w.t.Helper()
	endpoint, err := webhook.ParseURL(w.server.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	cut.Notifier = w.past.Notifier()
	client := webhook.New(endpoint, webhook.KeyFile(w.keyFile), time.Now)
	worker := notify.New(cut, w.reach, client, testkit.Logger(w.t), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := worker.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
		client.Close()
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) next() request {
	w.t.Helper()
	select {
	case r := <-w.taken:
		return r
	case <-time.After(patience):
		w.t.Fatal("no request in time")
		return request{}
	}
}

// Who is connected, has read or has written is left alone; the others get a
// signed request, once.
func TestNotifications(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	away, awayClient, awayTasker := w.open()
	read, readClient, readTasker := w.open()
	live, liveClient, liveTasker := w.open()
	w.send(away, awayClient)
	w.send(away, awayClient)
	w.send(read, readTasker)
	if _, err := w.past.MarkRead(t.Context(), read, readClient, 1); err != nil {
		t.Fatal(err)
	}
	w.send(live, liveClient)
	unsubscribe, err := w.bus.Subscribe(liveTasker)
	if err = errors.Join(err, w.conn.Flush()); err != nil {
		t.Fatal(err)
	}
	last, lastClient, lastTasker := w.open()
	w.send(last, lastTasker)

	stop := w.start(&severable{})
	got := map[uuid.UUID]request{}
	for range 2 {
		r := w.next()
		got[r.Data.UserID] = r
	}
	if r := got[awayTasker]; r.Data.ConversationID != away || r.Data.Seq != 2 || r.Data.Unread != 2 || r.Type != webhook.TypeUnread {
		t.Errorf("who was away got %+v", r)
	}
	if r := got[lastClient]; r.Data.Seq != 1 || r.Data.Unread != 1 {
		t.Errorf("who was away, too, got %+v", r)
	}
	w.waitNotified(2)
	stop()

	// Looked at once more, there is news for whose connection is gone alone.
	unsubscribe()
	if err := w.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	w.goBack()
	stop = w.start(&severable{})
	if r := w.next(); r.Data.UserID != liveTasker || r.Data.Seq != 1 {
		t.Errorf("a notification %+v", r)
	}
	w.waitNotified(3)
	stop()
	if len(w.taken) > 0 {
		t.Errorf("and another one: %+v", <-w.taken)
	}
}

// A process is killed in the midst of a batch; the next one goes on where it was:
// nothing is lost, and only what was under way comes twice, with the same id.
func TestAKilledProcessIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const conversations = 100
	for range conversations {
		conversation, client, _ := w.open()
		w.send(conversation, client)
	}
	ids := map[string]int{}
	var first severable
	stopFirst := w.start(&first)
	for range conversations / 2 {
		ids[w.next().ID]++
	}
	held := make(chan struct{})
	w.hold.Store(&held)
	first.cut.Store(true)
	close(held)
	w.hold.Store(nil)
	stopFirst()
	w.exec("UPDATE notifier SET held_until = clock_timestamp()") // the lease has run out
	w.start(&severable{})
	for len(ids) < conversations {
		ids[w.next().ID]++
	}
	twice := 0
	for _, n := range ids {
		twice += n - 1
	}
	if twice > 16 { // what one write tells of
		t.Errorf("%d were sent twice", twice)
	}
}

// The key in the file is replaced while processes run.
func TestTheKeyIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := contract.WebhookKeyPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("o", 32)))
	w.putKey(other)
	conversation, client, _ := w.open()
	w.send(conversation, client)
	w.start(&severable{})
	select { // the process has read the file, and signed with what it had
	case <-w.unsigned:
	case <-time.After(patience):
		t.Fatal("no request in time")
	}
	w.putKey(other + "\n" + key)
	w.next()
}

//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client"
)

// socketIOPage tries each transport of a stock client in a browser, writes and hears
// if it is let in, and reports.
//
//go:embed testdata/socketio.html
var socketIOPage string

// bundle is the stock client for browsers, as npm has it.
const bundle = "../../services/client/stockclient/client/node_modules/socket.io-client/dist/socket.io.min.js"

// pages serves that page from two origins; the one has the other's in a frame.
type pages struct {
	allowed, another *httptest.Server
	content          string // set before a page is opened
	reports          chan string
}

func newPages(t *testing.T) *pages {
	t.Helper()
	p := &pages{reports: make(chan string, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, p.content)
	})
	mux.HandleFunc("GET /socket.io.min.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.FromSlash(bundle))
	})
	mux.HandleFunc("POST /report", passOn(p.reports))
	p.allowed, p.another = httptest.NewServer(mux), httptest.NewServer(mux)
	t.Cleanup(p.allowed.Close)
	t.Cleanup(p.another.Close)
	return p
}

// browseSocketIO opens an app's page in a browser, from an origin that the Marketplace
// allows and from another one.
func (m marketplace) browseSocketIO(t *testing.T, p *pages) {
	t.Helper()
	s := m.stockClients(t)
	user, peer := s.signUp(), s.signUp()
	s.enter("peer", s.url, peer.Session)
	conversation := s.agree(user.Session, peer.Session, "peer")
	token, err := user.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.content = strings.NewReplacer(
		"ANOTHER", p.another.URL, "SERVICE", s.url, "TOKEN", token,
		"CONVERSATION", conversation.String(), "CLIENT", uuid.NewString(),
	).Replace(socketIOPage)
	native, err := peer.Dial(t.Context())
	if err != nil {
		t.Fatalf("connect the peer: %v", err)
	}
	t.Cleanup(native.Close)
	greeted := make(chan error, 1)
	go func() { greeted <- greet(t.Context(), native, conversation) }()

	type chat struct {
		First, Then string
		Sent, Heard any // numbers of messages
	}
	type mistakes struct {
		Stranger, Binary, Large string
		Then                    bool
	}
	type result struct {
		Polling, WebSocket, Default string
		Chat                        *chat
		Mistakes                    *mistakes
		Recovery                    []string
	}
	type report struct{ Allowed, Another result }
	want := report{
		Allowed: result{
			"connected", "connected", "connected", &chat{"polling", "websocket", 1., 2.},
			&mistakes{"token_invalid", "arguments_invalid", "body_too_large", true},
			[]string{"heard, recovered", "heard, recovered", "heard, recovered"},
		},
		Another: result{Polling: "xhr poll error", WebSocket: "websocket error", Default: "xhr poll error"},
	}
	began := time.Now()
	text, log := open(t, p.allowed.URL, p.reports)
	var got report
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("the pages report %q: %v\nthe browser says:\n%s", text, err, log)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the pages report something else (-want +got):\n%s\nthe browser says:\n%s", diff, log)
	}
	t.Logf("the pages report %s after %s", text, time.Since(began).Round(100*time.Millisecond))
	if err := <-greeted; err != nil {
		t.Error(err)
	}
	if e := s.hears("peer", "message"); e.ConversationID != conversation || e.Seq != 1 {
		t.Errorf("the peer hears %+v", e)
	}
}

// greet answers the first message in a conversation.
func greet(ctx context.Context, socket *client.Socket, conversation uuid.UUID) error {
	for e := range socket.Events() {
		if e.Op == "message" && e.ConversationID == conversation {
			_, err := socket.Send(ctx, conversation, uuid.Must(uuid.NewV7()), map[string]string{"text": "Hello, browser!"})
			return err
		}
	}
	return socket.Err()
}

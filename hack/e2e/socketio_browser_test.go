//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

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

// pages serves that page, from an origin of its own.
type pages struct {
	*httptest.Server
	reports chan string
	content string // set before a page is opened
}

func newPages(t *testing.T) *pages {
	t.Helper()
	p := &pages{reports: make(chan string, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(p.content))
	})
	mux.HandleFunc("GET /socket.io.min.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.FromSlash(bundle))
	})
	mux.HandleFunc("POST /report", passOn(p.reports))
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// browseSocketIO opens an app's page in a browser from an origin that the Marketplace
// allows, and from another one.
func (m marketplace) browseSocketIO(t *testing.T, allowed, another *pages) {
	s := m.stockClients(t)
	user, peer := s.signUp(), s.signUp()
	s.enter("peer", s.url, peer.Session)
	conversation := s.agree(user.Session, peer.Session, "peer")
	token, err := user.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pages{allowed, another} {
		p.content = strings.NewReplacer(
			"SERVICE", s.url, "TOKEN", token, "CONVERSATION", conversation.String(), "CLIENT", uuid.NewString(),
		).Replace(socketIOPage)
	}
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
	type report struct {
		Polling, WebSocket, Default string
		Chat                        *chat
	}
	for _, tt := range []struct {
		*pages
		want report
	}{
		{another, report{"xhr poll error", "websocket error", "xhr poll error", nil}},
		{allowed, report{"connected", "connected", "connected", &chat{"polling", "websocket", 1., 2.}}},
	} {
		text, log := open(t, tt.URL, tt.reports)
		var got report
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("a page of %s reports %q: %v\nthe browser says:\n%s", tt.URL, text, err, log)
		}
		t.Logf("a page of %s reports %s", tt.URL, text)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Fatalf("a page of %s reports something else (-want +got):\n%s\nthe browser says:\n%s", tt.URL, diff, log)
		}
	}
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

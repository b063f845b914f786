//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/client"
)

// socketIOPage tries each transport of a stock client in a browser, goes through what
// clients go through if it is let in, and reports.
//
//go:embed testdata/socketio.html
var socketIOPage string

// bundle is the stock client for browsers, as npm has it.
const bundle = "../../services/client/stockclient/client/node_modules/socket.io-client/dist/socket.io.min.js"

// pages serves that page from two origins; the one has the other's in a frame.
type pages struct {
	allowed, another *httptest.Server
	reports          chan string
	script           atomic.Pointer[script] // set before a page is opened
}

// script is what there is on a page, and what that may ask for by a name.
type script struct {
	content string
	steps   map[string]func(context.Context) (string, error)
}

func newPages(t *testing.T) *pages {
	t.Helper()
	p := &pages{reports: make(chan string, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, p.script.Load().content)
	})
	mux.HandleFunc("GET /socket.io.min.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.FromSlash(bundle))
	})
	mux.HandleFunc("POST /report", passOn(p.reports))
	mux.HandleFunc("POST /step", p.step)
	p.allowed, p.another = httptest.NewServer(mux), httptest.NewServer(mux)
	t.Cleanup(p.allowed.Close)
	t.Cleanup(p.another.Close)
	return p
}

// step does what a page asks for, and answers with what that says.
func (p *pages) step(w http.ResponseWriter, r *http.Request) {
	name, err := io.ReadAll(io.LimitReader(r.Body, 64))
	said := ""
	if do, ok := p.script.Load().steps[string(name)]; err == nil && ok {
		said, err = do(r.Context())
	} else if err == nil {
		err = fmt.Errorf("there is no step %q", name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, said)
}

// given is what a page has to know.
type given struct {
	Another      string    `json:"another"` // its other origin
	Service      string    `json:"service"`
	Token        string    `json:"token"`
	Ending       string    `json:"ending"` // a token whose session will end
	Conversation uuid.UUID `json:"conversation"`
	// Doomed are ways to the pod that will be killed: for a client that polls, for one
	// in the middle of its upgrade, for one after it, and for one that has only a WebSocket.
	Doomed [4]string `json:"doomed"`
}

// browseSocketIO opens an app's page in a browser, from an origin that the Marketplace
// allows and from another one.
func (m marketplace) browseSocketIO(t *testing.T, p *pages) {
	t.Helper()
	s := m.stockClients(t)
	user, peer := s.signUp(), s.signUp()
	s.enter("peer", s.url, peer.Session, options{"retries": 100})
	g := given{Another: p.another.URL, Service: s.url, Conversation: s.agree(user.Session, peer.Session, "peer")}
	ending := s.logIn(user)
	for token, session := range map[*string]*client.Session{&g.Token: user.Session, &g.Ending: ending} {
		var err error
		if *token, err = session.AccessToken(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	native, err := peer.Dial(t.Context())
	if err != nil {
		t.Fatalf("connect the peer: %v", err)
	}
	t.Cleanup(native.Close)
	greeted := make(chan error, 1)
	go func() { greeted <- greet(t.Context(), native, g.Conversation) }()

	pods, err := m.pods(t.Context(), contract.ComponentMessaging)
	if err != nil || len(pods) < 2 {
		t.Fatalf("%d pods of messaging: %v", len(pods), err)
	}
	d := doomed{pod: pods[0], service: s.url}
	for i, stop := range []stage{nowhere, beforeProbe, nowhere, nowhere} {
		d.ways[i] = newBalancer(t, podURL(pods[0]), podURL(pods[i%2]), stop)
		g.Doomed[i] = d.ways[i].URL
	}
	content, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	p.script.Store(&script{strings.Replace(socketIOPage, "GIVEN", string(content), 1), map[string]func(context.Context) (string, error){
		"a token": func(ctx context.Context) (string, error) {
			return m.tokenUntil(ctx, g.Token, time.Now().Add(10*time.Second))
		},
		"log out": func(ctx context.Context) (string, error) { return "", ending.Logout(ctx) },
		"kill": func(ctx context.Context) (string, error) {
			err := d.kill(ctx)
			if err == nil {
				_, err = native.Send(ctx, g.Conversation, uuid.Must(uuid.NewV7()), map[string]string{"text": "A pod is dead."})
			}
			return "", err
		},
	}})

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
		Recovery, End, Expiry, Kill []string
	}
	type report struct{ Allowed, Another result }
	const (
		back  = "heard, recovered"
		ended = "ended, io server disconnect, session_ended"
	)
	want := report{
		Allowed: result{
			Polling: "connected", WebSocket: "connected", Default: "connected",
			Chat:     &chat{"polling", "websocket", 1., 2.},
			Mistakes: &mistakes{"token_invalid", "arguments_invalid", "body_too_large", true},
			Recovery: []string{back, back, back},
			End:      []string{ended, ended, ended},
			Expiry:   []string{"stayed", "stayed", "stayed"},
			Kill:     []string{"polling, " + back, "polling, " + back, "websocket, " + back, "websocket, " + back},
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
	if e := s.hears("peer", "message"); e.ConversationID != g.Conversation || e.Seq != 1 {
		t.Errorf("the peer hears %+v", e)
	}
	eventually(t, time.Minute, "there is another pod", func(ctx context.Context) error {
		now, err := m.pods(ctx, contract.ComponentMessaging)
		return errors.Join(err, replaced(now, d.pod, len(pods)))
	})
	m.waitReady(t)
}

// doomed is a pod that will be killed, and four ways to it; the second one stops an
// upgrade.
type doomed struct {
	pod     corev1.Pod
	ways    [4]*balancer
	service string
}

// kill kills the pod while an upgrade is stopped, and has all clients go to the
// Service from then on.
func (d doomed) kill(ctx context.Context) error {
	upgrading := d.ways[1]
	close(upgrading.started)
	select {
	case <-upgrading.stopped:
	case <-ctx.Done():
		return errors.New("there is no upgrade to stop")
	}
	for _, way := range d.ways {
		if err := way.to(d.service, d.service); err != nil {
			return err
		}
	}
	if err := cluster.kube.Delete(ctx, &d.pod, kube.GracePeriodSeconds(0)); err != nil {
		return err
	}
	err := poll(ctx, time.Minute, func(ctx context.Context) error { return isDead(ctx, d.pod.Status.PodIP, contract.InternalPort) })
	close(upgrading.resumed)
	return err
}

// tokenUntil is an access token like another one that is refused from some time on,
// signed with auth's key.
func (m marketplace) tokenUntil(ctx context.Context, like string, refused time.Time) (string, error) {
	secret := &corev1.Secret{}
	if err := cluster.kube.Get(ctx, kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-signing"}, secret); err != nil {
		return "", err
	}
	keys, err := contract.ParseSigningKeys(secret.Data[contract.FileSigningKeys])
	if err != nil {
		return "", err
	}
	key, err := keys.Signer(time.Now())
	if err != nil {
		return "", err
	}
	parsed, err := jwt.ParseSigned(like, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", err
	}
	var claims map[string]any
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return "", err
	}
	claims["exp"] = jwt.NewNumericDate(refused.Add(-contract.TokenLeeway))
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.Private(), KeyID: key.ID}},
		(&jose.SignerOptions{}).WithType("at+jwt"),
	)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
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

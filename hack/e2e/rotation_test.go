//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
)

// Someone asks for a new signing key while people log in and use their tokens
// everywhere. Not one token is refused: neither an old one after the new key
// signs, nor a new one in its first second; over HTTP, and where sockets
// authenticate.
func TestKeysRotateWithoutARefusedToken(t *testing.T) {
	spec := small()
	spec.Auth.Replicas, spec.Tasks.Replicas = new(int32(2)), new(int32(2))
	m := start(t, "rotation", spec)
	before, err := m.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := before.Status.Keys.Active

	b := m.useTokens(t)
	eventually(t, time.Minute, "tokens are used everywhere", b.used(old, 100))
	m.annotate(t, v1alpha1.AnnotationRotateKeys, "now")
	var next v1alpha1.ScheduledKey
	eventually(t, 30*time.Second, "a new key is published", func(ctx context.Context) error {
		object, err := m.get(ctx)
		if err != nil {
			return err
		}
		keys := object.Status.Keys
		if keys.RotateRequest != "now" || len(keys.Schedule) != 2 {
			return fmt.Errorf("%+v", keys)
		}
		next = keys.Schedule[1]
		return nil
	})
	eventually(t, contract.KeyLead+30*time.Second, "the new key signs, and is taken everywhere", b.used(next.ID, 100))
	eventually(t, time.Minute, "the status tells of the new key", func(ctx context.Context) error {
		object, err := m.get(ctx)
		if err != nil {
			return err
		}
		if active := object.Status.Keys.Active; active != next.ID {
			return fmt.Errorf("key %s signs, want %s", active, next.ID)
		}
		return nil
	})
	// Old tokens are used on, beside new ones, and every process has read its
	// files once more.
	eventually(t, 2*time.Minute, "old and new tokens are taken side by side", b.used(next.ID, 500))

	b.end()
	t.Log(b)
	for _, refusal := range b.refusals {
		t.Error(refusal)
	}
	if b.early != "" {
		t.Error(b.early)
	}
	for _, key := range []string{old, next.ID} {
		if b.uses[key] == 0 || b.sockets[key] == 0 {
			t.Errorf("tokens of key %s were taken %d times, and opened %d sockets", key, b.uses[key], b.sockets[key])
		}
	}
	for id := range b.uses {
		if id != old && id != next.ID {
			t.Errorf("a token of key %s, which nobody asked for", id)
		}
	}
	for _, component := range contract.Services() {
		pods, err := m.pods(t.Context(), component)
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods {
			if pod.CreationTimestamp.After(next.ActivatesAt.Add(-contract.KeyLead)) {
				t.Errorf("pod %s was started by the rotation", pod.Name)
			}
		}
	}
}

// annotate does what kubectl annotate does.
func (m marketplace) annotate(t *testing.T, name, value string) {
	t.Helper()
	object, err := m.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := object.DeepCopy()
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	object.Annotations[name] = value
	if err := cluster.kube.Patch(t.Context(), object, kube.MergeFrom(before)); err != nil {
		t.Fatalf("annotate Marketplace %s: %v", m.name, err)
	}
}

// bearer is a token that someone holds.
type bearer struct {
	token, key string
	expires    time.Time
}

// bearers log in again and again, use all their tokens on every service, and
// open sockets with the newest.
type bearers struct {
	api  *client.Client
	urls client.URLs
	http *http.Client

	mu       sync.Mutex
	held     []bearer
	logIns   int
	uses     map[string]int // by key
	sockets  map[string]int // those that were opened, by key
	refusals []string
	early    string // a key that signed before verifiers outside could know it

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// useTokens begins to log in and to use tokens.
func (m marketplace) useTokens(t *testing.T) *bearers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &bearers{
		api: m.client(t), urls: m.urls(t), http: &http.Client{Timeout: 10 * time.Second},
		uses: map[string]int{}, sockets: map[string]int{}, cancel: cancel,
	}
	t.Cleanup(b.end)
	password := rand.Text()
	email := fmt.Sprintf("%s@example.com", uuid.Must(uuid.NewV7()))
	if _, err := b.api.Register(ctx, email, password, "Bearer"); err != nil {
		t.Fatalf("sign up: %v", err)
	}
	b.running.Go(func() { b.logInAgain(ctx, email, password) })
	for _, url := range []string{
		b.urls.Auth + "/v1/auth/me",
		b.urls.Tasks + "/v1/tasks?limit=1",
		b.urls.Messaging + "/v1/conversations?limit=1",
	} {
		b.running.Go(func() { b.use(ctx, url) })
	}
	b.running.Go(func() { b.openSockets(ctx) })
	return b
}

// logInAgain logs in every second. It also plays a verifier outside of the
// cluster, which fetches the public keys as seldom as it may.
func (b *bearers) logInAgain(ctx context.Context, email, password string) {
	var (
		known   []string
		fetched time.Time
	)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if time.Since(fetched) >= contract.JWKSMaxAge {
			keys, err := b.fetchKeys(ctx)
			if err != nil {
				b.complain(ctx, fmt.Errorf("fetch the public keys: %w", err))
			}
			known, fetched = keys, time.Now()
		}
		session, err := b.api.Login(ctx, email, password)
		if err == nil {
			err = b.hold(ctx, session, known)
		}
		if err != nil {
			b.complain(ctx, fmt.Errorf("log in: %w", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *bearers) hold(ctx context.Context, session *client.Session, known []string) error {
	token, err := session.AccessToken(ctx)
	if err != nil {
		return err
	}
	key, err := keyOf(token)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logIns++
	if !slices.Contains(known, key) && b.early == "" {
		b.early = fmt.Sprintf("key %s signs, and was not published %s before", key, contract.JWKSMaxAge)
	}
	// A little less than its life, for the request's own time.
	b.held = append(b.held, bearer{token, key, time.Now().Add(contract.AccessTokenLife - 10*time.Second)})
	b.held = slices.DeleteFunc(b.held, func(h bearer) bool { return time.Now().After(h.expires) })
	return nil
}

// use sends the held tokens to url: the oldest, the newest, and those between
// in turn.
func (b *bearers) use(ctx context.Context, url string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		var held bearer
		if n := len(b.held); n > 0 {
			held = b.held[[]int{0, n - 1, i % n}[i%3]]
		}
		b.mu.Unlock()
		if held.token == "" || time.Now().After(held.expires) {
			continue
		}
		if err := b.useOne(ctx, url, held); err != nil {
			b.complain(ctx, err)
			continue
		}
		b.mu.Lock()
		b.uses[held.key]++
		b.mu.Unlock()
	}
}

func (b *bearers) useOne(ctx context.Context, url string, held bearer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+held.token)
	answer, err := b.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s with a token of key %s: %s: %s", url, held.key, answer.Status, text)
	}
	return nil
}

// openSockets opens one socket after the other, each with the newest token,
// which is seconds old at most.
func (b *bearers) openSockets(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		var newest bearer
		if n := len(b.held); n > 0 {
			newest = b.held[n-1]
		}
		b.mu.Unlock()
		if newest.token == "" || time.Now().After(newest.expires) {
			continue
		}
		if err := b.openSocket(ctx, newest); err != nil {
			b.complain(ctx, fmt.Errorf("open a socket with a token of key %s: %w", newest.key, err))
			continue
		}
		b.mu.Lock()
		b.sockets[newest.key]++
		b.mu.Unlock()
	}
}

// openSocket opens a socket, authenticates, and closes it. The client's own
// sockets are of no use here: they would try again with another token.
func (b *bearers) openSocket(ctx context.Context, held bearer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	url := "ws" + strings.TrimPrefix(b.urls.Messaging, "http") + contract.PathWebSocket
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{client.Subprotocol}}) //nolint:bodyclose // the library closes it
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	command, err := json.Marshal(map[string]any{"id": 1, "op": "auth", "token": held.token})
	if err != nil {
		return err
	}
	if err := conn.Write(ctx, websocket.MessageText, append(command, '\n')); err != nil {
		return err
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			var reply struct {
				Re    int               `json:"re"`
				Error *client.WireError `json:"error"`
			}
			if err := json.Unmarshal(line, &reply); err != nil {
				return fmt.Errorf("read %q: %w", line, err)
			}
			switch {
			case reply.Error != nil:
				return reply.Error
			case reply.Re == 1:
				return conn.Close(websocket.StatusNormalClosure, "")
			}
		}
	}
}

func (b *bearers) fetchKeys(ctx context.Context) ([]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.urls.Auth+"/.well-known/jwks.json", nil)
	if err != nil {
		return nil, err
	}
	answer, err := b.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&set); err != nil {
		return nil, err
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.ID)
	}
	return ids, nil
}

// keyOf is the id of the key that a token was signed with.
func keyOf(token string) (string, error) {
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return "", fmt.Errorf("read the header of a token: %w", err)
	}
	var fields struct {
		ID string `json:"kid"`
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return "", fmt.Errorf("read the header of a token: %w", err)
	}
	return fields.ID, nil
}

// complain notes what went wrong, unless it is the end.
func (b *bearers) complain(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	const enough = 20
	if len(b.refusals) < enough {
		b.refusals = append(b.refusals, time.Now().UTC().Format(time.TimeOnly)+": "+err.Error())
	}
}

// used says what is missing until tokens of the key were taken so many times.
func (b *bearers) used(key string, times int) func(context.Context) error {
	return func(context.Context) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.uses[key] < times {
			return fmt.Errorf("tokens of key %s were taken %d times", key, b.uses[key])
		}
		return nil
	}
}

// end stops everyone, and may be called twice.
func (b *bearers) end() {
	b.cancel()
	b.running.Wait()
}

func (b *bearers) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d log-ins; tokens taken by key: %v; sockets opened by key: %v; %d went wrong", b.logIns, b.uses, b.sockets, len(b.refusals))
}

package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/messaging/notify"
)

// The keys, and a message with its signature, of the specification's own example.
const (
	exampleKey       = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleTimestamp = "1614265330"
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var otherKey = contract.WebhookKeyPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))

func TestSignature(t *testing.T) {
	t.Parallel()
	keys, err := contract.ParseWebhookKeys([]byte(exampleKey + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := signature(keys, exampleID, exampleTimestamp, []byte(exampleBody)); got != exampleSignature {
		t.Errorf("signature %s, want %s", got, exampleSignature)
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		"https://push.example.com":                       nil,
		"https://push.example.com:8443/in?tenant=7":      nil,
		"http://push.team.svc:8080/in":                   nil,
		"http://push.team.svc.cluster.local":             nil,
		"http://localhost:9000":                          nil,
		"http://127.0.0.1:9000":                          nil,
		"http://[::1]:9000":                              nil,
		"http://push.example.com":                        errPlain,
		"http://10.0.0.1":                                errPlain,
		"http://push.team.svc.example.com":               errPlain,
		"http://push.team.svc.cluster.local.example.com": errPlain,
		"https://user:password@push.example.com":         errURL,
		"https://push.example.com/#here":                 errURL,
		"ftp://push.example.com":                         errURL,
		"https:push.example.com":                         errURL,
		"https://":                                       errURL,
		"push.example.com":                               errURL,
		"":                                               errURL,
		"https://push.example.com\r\nWebhook-Id: other":  errURL,
	} {
		if _, err := ParseURL(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("https://push.example.com/in")
	f.Add("http://push.team.svc:8080")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURL(text)
		if err != nil {
			return
		}
		if u.User != nil || u.Hostname() == "" || u.Scheme == "http" && !isLocal(u.Hostname()) {
			t.Errorf("%q is taken", text)
		}
	})
}

// endpoint is a real server that answers as it is told.
type endpoint struct {
	*httptest.Server
	requests chan *http.Request
	bodies   chan string
}

func serve(t *testing.T, answer http.HandlerFunc) endpoint {
	t.Helper()
	e := endpoint{requests: make(chan *http.Request, 100), bodies: make(chan string, 100)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e.requests <- r
		e.bodies <- string(body)
		answer(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e endpoint) client(t *testing.T, keys func() (contract.WebhookKeys, error)) *Client {
	t.Helper()
	u, err := ParseURL(e.URL + "/in?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	c := New(u, keys, func() time.Time { return time.Unix(1614265330, 0) })
	t.Cleanup(c.Close)
	return c
}

func fixedKeys() (contract.WebhookKeys, error) { return contract.ParseWebhookKeys([]byte(exampleKey)) }

var notification = notify.Notification{
	UserID:         uuid.MustParse("0198a000-0000-7000-8000-000000000001"),
	ConversationID: uuid.MustParse("0198a000-0000-7000-8000-000000000002"),
	MessageID:      uuid.MustParse("0198a000-0000-7000-8000-000000000003"),
	From:           uuid.MustParse("0198a000-0000-7000-8000-000000000004"),
	Seq:            42, Unread: 3, SentAt: time.Date(2026, 7, 1, 12, 0, 0, 5000, time.UTC),
}

func TestSend(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if err := e.client(t, fixedKeys).Send(t.Context(), notification); err != nil {
		t.Fatal(err)
	}
	r, body := <-e.requests, <-e.bodies
	want := `{"type":"message.unread","timestamp":"2026-07-01T12:00:00.000005Z","data":{` +
		`"user_id":"0198a000-0000-7000-8000-000000000001","conversation_id":"0198a000-0000-7000-8000-000000000002",` +
		`"message_id":"0198a000-0000-7000-8000-000000000003","seq":42,"from":"0198a000-0000-7000-8000-000000000004",` +
		`"sent_at":"2026-07-01T12:00:00.000005Z","unread":3}}`
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	if r.Method != http.MethodPost || r.URL.RequestURI() != "/in?token=secret" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	if r.Header.Get(headerID) != notification.ID() || r.Header.Get(headerTimestamp) != exampleTimestamp {
		t.Errorf("headers %v", r.Header)
	}
	// As the documentation tells receivers to verify it.
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(exampleKey, contract.WebhookKeyPrefix))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + body))
	signature := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if !slices.Contains(strings.Fields(r.Header.Get("webhook-signature")), signature) {
		t.Errorf("signature %q, want %q", r.Header.Get("webhook-signature"), signature)
	}

	system := notification
	system.From = uuid.Nil
	if err := e.client(t, fixedKeys).Send(t.Context(), system); err != nil {
		t.Fatal(err)
	}
	if body := <-e.bodies; strings.Contains(body, "from") {
		t.Errorf("the system is someone: %s", body)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		after  string
		want   notify.RefusalError
	}{
		"gone":              {410, "", notify.RefusalError{Status: 410, Verdict: notify.Never}},
		"not understood":    {422, "", notify.RefusalError{Status: 422, Verdict: notify.Never}},
		"unknown key":       {401, "", notify.RefusalError{Status: 401, Verdict: notify.Unclear}},
		"nothing there":     {404, "", notify.RefusalError{Status: 404, Verdict: notify.Unclear}},
		"broken":            {500, "", notify.RefusalError{Status: 500, Verdict: notify.Unclear}},
		"too fast":          {429, "7", notify.RefusalError{Status: 429, RetryAfter: 7 * time.Second}},
		"until a date":      {503, "Wed, 21 Oct 2026 07:28:00 GMT", notify.RefusalError{Status: 503}},
		"nonsense":          {503, "-1", notify.RefusalError{Status: 503}},
		"no back end":       {502, "", notify.RefusalError{Status: 502}},
		"timed out":         {408, "", notify.RefusalError{Status: 408}},
		"a redirect":        {307, "", notify.RefusalError{Status: 307}},
		"permanently moved": {301, "", notify.RefusalError{Status: 301}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", tt.after)
				w.Header().Set("Location", "http://"+r.Host+"/elsewhere")
				w.WriteHeader(tt.status)
			})
			err := e.client(t, fixedKeys).Send(t.Context(), notification)
			var got *notify.RefusalError
			if !errors.As(err, &got) || *got != tt.want {
				t.Errorf("%v %+v, want %+v", err, got, tt.want)
			}
			if n := len(e.requests); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// An answer without an end neither holds up nor fills the memory.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		chunk := make([]byte, 1<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if err := e.client(t, fixedKeys).Send(t.Context(), notification); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestErrorsHoldNoURL(t *testing.T) {
	t.Parallel()
	e := serve(t, func(http.ResponseWriter, *http.Request) {})
	e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := e.client(t, fixedKeys).Send(ctx, notification)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// A new key in the file signs at once, beside the old one for as long as both
// are there; a file that is gone stops nothing but the sending.
func TestKeysAreReadAnew(t *testing.T) {
	t.Parallel()
	e := serve(t, func(http.ResponseWriter, *http.Request) {})
	path := filepath.Join(t.TempDir(), "key")
	c := e.client(t, KeyFile(path))
	if err := c.Send(t.Context(), notification); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	var signatures []string
	for _, content := range []string{exampleKey, exampleKey + "\n" + otherKey, otherKey} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), notification); err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, (<-e.requests).Header.Get(headerSignature))
	}
	if signatures[1] != signatures[0]+" "+signatures[2] || signatures[0] == signatures[2] {
		t.Errorf("signatures %q", signatures)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), notification); err == nil || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("with a bad file: %v", err)
	}
}

// A name that leads to this machine, or to its link, leads nowhere.
func TestAddressesAreGuarded(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]error{
		"10.0.0.1:443":                nil,
		"203.0.113.7:8443":            nil,
		"[fd00::1]:443":               nil,
		"127.0.0.1:8081":              errAddress,
		"[::1]:8081":                  errAddress,
		"[::ffff:127.0.0.1]:8081":     errAddress,
		"0.0.0.0:8081":                errAddress,
		"[::]:8081":                   errAddress,
		"169.254.169.254:80":          errAddress,
		"[::ffff:169.254.169.254]:80": errAddress,
		"[fe80::1%eth0]:80":           errAddress,
		"224.0.0.1:80":                errAddress,
		"nonsense":                    errAddress,
	} {
		if err := guard(false)("tcp", address, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
	if err := guard(true)("tcp", "127.0.0.1:8081", nil); err != nil {
		t.Errorf("this machine, which the URL names: %v", err)
	}
	// Linux takes this for its loopback.
	e := serve(t, func(http.ResponseWriter, *http.Request) {})
	u, err := url.Parse(strings.Replace(e.URL, "127.0.0.1", "0.0.0.0", 1))
	if err != nil {
		t.Fatal(err)
	}
	c := New(u, fixedKeys, time.Now)
	defer c.Close()
	if err := c.Send(t.Context(), notification); !errors.Is(err, errAddress) || len(e.requests) > 0 {
		t.Errorf("sent to an address that is refused: %v", err)
	}
}

func TestNewRequestRefusesNonsense(t *testing.T) {
	t.Parallel()
	if _, err := newRequest(t.Context(), "http://[::1", "id", time.Now(), nil, nil); !errors.Is(err, errNoRequest) {
		t.Error(err)
	}
}

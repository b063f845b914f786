// Package client is the other side of the public API, as an app would write
// it: HTTP with retries that are safe, tokens that refresh themselves, and a
// socket that resumes. The smoke test, the end-to-end tests and the load
// generator use it; it imports nothing of the services but their wire.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// URLs are the base URLs of the three services; behind one gateway they are
// the same.
type URLs struct{ Auth, Tasks, Messaging string }

// At returns the URLs of a deployment behind one address.
func At(base string) URLs { return URLs{Auth: base, Tasks: base, Messaging: base} }

// Client speaks to one deployment.
type Client struct {
	urls URLs
	http *http.Client
}

// requestTimeout bounds one try. A request to a pod that is gone must not eat
// the time in which another pod would answer.
const requestTimeout = 5 * time.Second

// New makes a client; transport may be nil for the default one.
func New(urls URLs, transport http.RoundTripper) *Client {
	trim := func(u string) string { return strings.TrimRight(u, "/") }
	return &Client{
		urls: URLs{Auth: trim(urls.Auth), Tasks: trim(urls.Tasks), Messaging: trim(urls.Messaging)},
		http: &http.Client{Transport: transport},
	}
}

// Problem is a refusal by the server (RFC 9457).
type Problem struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`

	retryAfter time.Duration
}

// Error says what the server said.
func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s: %s (request %s)", p.Status, p.Code, p.Detail, p.RequestID)
}

// IsProblem says whether err is a refusal with the given code.
func IsProblem(err error, code string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}

// request is one call, which may be tried several times.
type request struct {
	method, url string
	body        any
	header      http.Header
}

// do tries the request until it is answered for good or ctx ends. Every
// request here may be repeated: creating ones carry an Idempotency-Key, and
// callers of the others compare what is with what they asked for. It says
// whether more than one try was made, so that a caller can tell its own echo
// from a real conflict.
func (c *Client) do(ctx context.Context, r request, out any) (repeated bool, err error) {
	var encoded []byte
	if r.body != nil {
		if encoded, err = json.Marshal(r.body); err != nil {
			return false, fmt.Errorf("encode the body of %s %s: %w", r.method, r.url, err)
		}
	}
	for attempt := 0; ; attempt++ {
		err := c.try(ctx, r, encoded, out)
		if err == nil || !isTemporary(err) {
			return attempt > 0, err
		}
		if waitErr := wait(ctx, delay(attempt, err)); waitErr != nil {
			return attempt > 0, fmt.Errorf("%s %s: gave up after %d tries: %w", r.method, r.url, attempt+1, err)
		}
	}
}

func (c *Client) try(ctx context.Context, r request, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(req)
	if err != nil {
		return &transportError{err}
	}
	defer func() { _ = response.Body.Close() }()
	const maxAnswer = 8 << 20
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return &transportError{err}
	}
	if response.StatusCode >= http.StatusBadRequest {
		return problemOf(response, content)
	}
	if out == nil || len(content) == 0 {
		return nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what the API promises: %w", r.method, r.url, err)
	}
	return nil
}

func problemOf(response *http.Response, content []byte) *Problem {
	p := &Problem{}
	if err := json.Unmarshal(content, p); err != nil || p.Code == "" {
		// A proxy in between answers in its own way.
		p = &Problem{Code: "not_a_problem", Detail: http.StatusText(response.StatusCode)}
	}
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		p.retryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// transportError is a failure on the way: whether the server did what was
// asked is not known.
type transportError struct{ err error }

func (e *transportError) Error() string { return e.err.Error() }
func (e *transportError) Unwrap() error { return e.err }

func isTemporary(err error) bool {
	var p *Problem
	if errors.As(err, &p) {
		switch p.Status {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return p.Code == "request_in_flight"
	}
	var t *transportError
	return errors.As(err, &t)
}

// delay grows from 0.1 to 2 seconds, with full jitter on its upper half; the
// server's own wish comes first.
func delay(attempt int, err error) time.Duration {
	const first, longest = 100 * time.Millisecond, 2 * time.Second
	d := longest
	if attempt < 5 {
		d = min(first<<attempt, longest)
	}
	d = d/2 + rand.N(d/2) //nolint:gosec // G404: jitter needs no secrecy
	var p *Problem
	if errors.As(err, &p) && p.retryAfter > d {
		return p.retryAfter
	}
	return d
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

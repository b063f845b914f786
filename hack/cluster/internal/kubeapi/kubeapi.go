// Package kubeapi is a small client of the Kubernetes API: enough to wait for
// a cluster and to provision volumes. The tool needs no more, and without the
// full client library it compiles in a second.
package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Client talks to one API server as one user.
type Client struct {
	base string
	http *http.Client
}

// StatusError is an answer other than success.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Message) }

// IsStatus says whether an error is an answer with the given status code.
func IsStatus(err error, code int) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == code
}

// New returns a client that trusts ca.crt and shows admin.crt, both of the
// given folder.
func New(server, pkiDir string) (*Client, error) {
	ca, err := os.ReadFile(filepath.Join(pkiDir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("authority is no PEM certificate")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(pkiDir, "admin.crt"), filepath.Join(pkiDir, "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	return &Client{base: server, http: &http.Client{Transport: &http.Transport{
		// No proxy: the server is on this machine, whatever the environment says.
		Proxy:               nil,
		TLSClientConfig:     &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     time.Minute,
	}}}, nil
}

const callTimeout = 10 * time.Second

// Get decodes the object at path into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, "", nil, out)
}

// Create posts an object to a collection.
func (c *Client) Create(ctx context.Context, path string, in any) error {
	return c.call(ctx, http.MethodPost, path, "application/json", in, nil)
}

// Patch merges a change into the object at path (RFC 7396).
func (c *Client) Patch(ctx context.Context, path string, in any) error {
	return c.call(ctx, http.MethodPatch, path, "application/merge-patch+json", in, nil)
}

// Delete deletes the object at path.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodDelete, path, "", nil, nil)
}

func (c *Client) call(ctx context.Context, method, path, contentType string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: encode: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: decode: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		var status struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(data, &status) != nil || status.Message == "" {
			status.Message = string(data)
		}
		return nil, fmt.Errorf("%s %s: %w", method, path, &StatusError{Code: resp.StatusCode, Message: status.Message})
	}
	return resp, nil
}

// Healthy says whether the API server answers its readiness endpoint.
func (c *Client) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, "/readyz", "", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Watch calls changed for each change in a collection, and once at the start,
// until the server ends the watch (after lifetime at most) or ctx is done.
// What changed is not told: the caller looks again at everything.
func (c *Client) Watch(ctx context.Context, path string, lifetime time.Duration, changed func()) error {
	ctx, cancel := context.WithTimeout(ctx, lifetime+callTimeout)
	defer cancel()
	resp, err := c.send(ctx, http.MethodGet, fmt.Sprintf("%s?watch=true&timeoutSeconds=%d", path, int(lifetime.Seconds())), "", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	changed()
	decoder := json.NewDecoder(resp.Body)
	for {
		var event json.RawMessage
		if err := decoder.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("watch %s: %w", path, err)
		}
		changed()
	}
}

package client

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Session is a signed-in user.
type Session struct {
	UserID uuid.UUID

	client *Client

	mu      sync.Mutex // held while refreshing, so that one refresh serves all
	access  string
	expires time.Time
	refresh string
}

type tokens struct {
	AccessToken  string    `json:"access_token"`
	ExpiresIn    int       `json:"expires_in"`
	RefreshToken string    `json:"refresh_token"`
	UserID       uuid.UUID `json:"user_id"`
}

// Register makes a user and signs it in. When an earlier try was carried out
// but its answer got lost, it logs in instead.
func (c *Client) Register(ctx context.Context, email, password, displayName string) (*Session, error) {
	var t tokens
	repeated, err := c.do(ctx, request{
		method: http.MethodPost, url: c.urls.Auth + "/v1/auth/register",
		body: map[string]string{"email": email, "password": password, "display_name": displayName},
	}, &t)
	if repeated && IsProblem(err, "email_taken") {
		return c.Login(ctx, email, password)
	}
	if err != nil {
		return nil, err
	}
	return c.session(t), nil
}

// Login signs a user in.
func (c *Client) Login(ctx context.Context, email, password string) (*Session, error) {
	var t tokens
	_, err := c.do(ctx, request{
		method: http.MethodPost, url: c.urls.Auth + "/v1/auth/login",
		body: map[string]string{"email": email, "password": password},
	}, &t)
	if err != nil {
		return nil, err
	}
	return c.session(t), nil
}

func (c *Client) session(t tokens) *Session {
	s := &Session{client: c, UserID: t.UserID}
	s.take(t)
	return s
}

// take must be called before the session is shared, or under its lock.
func (s *Session) take(t tokens) {
	s.access, s.refresh = t.AccessToken, t.RefreshToken
	s.expires = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)
}

// refreshMargin is how long before its end a token is renewed.
const refreshMargin = 30 * time.Second

// AccessToken returns one that is good for a while, refreshed if need be.
func (s *Session) AccessToken(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Until(s.expires) > refreshMargin {
		return s.access, nil
	}
	var t tokens
	_, err := s.client.do(ctx, request{
		method: http.MethodPost, url: s.client.urls.Auth + "/v1/auth/refresh",
		body: map[string]string{"refresh_token": s.refresh},
	}, &t)
	if err != nil {
		return "", err
	}
	s.take(t)
	return s.access, nil
}

// Logout ends the session.
func (s *Session) Logout(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.client.do(ctx, request{
		method: http.MethodPost, url: s.client.urls.Auth + "/v1/auth/logout",
		body: map[string]string{"refresh_token": s.refresh},
	}, nil)
	return err
}

// do sends a request in the user's name. Tries may outlast a token; then they
// go on with a new one.
func (s *Session) do(ctx context.Context, r request, out any) (repeated bool, err error) {
	if r.header == nil {
		r.header = http.Header{}
	}
	for {
		token, err := s.AccessToken(ctx)
		if err != nil {
			return repeated, err
		}
		r.header.Set("Authorization", "Bearer "+token)
		again, err := s.client.do(ctx, r, out)
		repeated = repeated || again
		if !again || !IsProblem(err, "token_expired") {
			return repeated, err
		}
	}
}

// create sends a POST that makes something, once, however often it is tried.
func (s *Session) create(ctx context.Context, url string, body, out any) error {
	key := uuid.Must(uuid.NewV7()).String()
	_, err := s.do(ctx, request{
		method: http.MethodPost, url: url, body: body, header: http.Header{"Idempotency-Key": {key}},
	}, out)
	return err
}

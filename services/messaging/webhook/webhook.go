// Package webhook sends notifications to an HTTP endpoint, signed as the
// Standard Webhooks specification says (https://www.standardwebhooks.com).
package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/messaging/notify"
)

// TypeUnread is the type of what is sent.
const TypeUnread = "message.unread"

const (
	connectTimeout = 5 * time.Second
	// answerTimeout bounds the wait for an answer. The caller's context bounds the
	// whole request.
	answerTimeout = 10 * time.Second
	maxHeaders    = 16 << 10
	// maxAnswer is what is read of an answer's body, to use its connection again.
	maxAnswer = 4 << 10
	// maxConnections is how many requests are under way at a time.
	maxConnections = 8
)

// Client implements notify.Sender.
type Client struct {
	url  string
	keys func() (contract.WebhookKeys, error)
	http *http.Client
	now  func() time.Time
}

// New makes a client of the endpoint. keys is called for each request, so that
// new ones take effect at once; now is the clock.
func New(endpoint *url.URL, keys func() (contract.WebhookKeys, error), now func() time.Time) *Client {
	return &Client{url: endpoint.String(), keys: keys, now: now, http: &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: connectTimeout, Control: guard(isLoopback(endpoint.Hostname()))}).DialContext,
			TLSHandshakeTimeout:    connectTimeout,
			ResponseHeaderTimeout:  answerTimeout,
			MaxResponseHeaderBytes: maxHeaders,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        time.Minute,
			ForceAttemptHTTP2:      true,
		},
		// What is signed for one place is not sent to another.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes connections that wait for another request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

type event struct {
	Type string `json:"type"`
	// Timestamp is when the newest message was sent.
	Timestamp time.Time `json:"timestamp"`
	Data      unread    `json:"data"`
}

type unread struct {
	UserID         uuid.UUID  `json:"user_id"`
	ConversationID uuid.UUID  `json:"conversation_id"`
	MessageID      uuid.UUID  `json:"message_id"`
	Seq            int64      `json:"seq"`
	From           *uuid.UUID `json:"from,omitempty"`
	SentAt         time.Time  `json:"sent_at"`
	Unread         int        `json:"unread"`
}

// Send implements notify.Sender. No error holds the URL, which may be a secret
// in itself.
func (c *Client) Send(ctx context.Context, n notify.Notification) error {
	e := event{Type: TypeUnread, Timestamp: n.SentAt.UTC(), Data: unread{
		UserID: n.UserID, ConversationID: n.ConversationID, MessageID: n.MessageID,
		Seq: n.Seq, SentAt: n.SentAt.UTC(), Unread: n.Unread,
	}}
	if n.From != uuid.Nil {
		e.Data.From = &n.From
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return c.post(ctx, n.ID(), body)
}

func (c *Client) post(ctx context.Context, id string, body []byte) error {
	keys, err := c.keys()
	if err != nil {
		return err
	}
	request, err := newRequest(ctx, c.url, id, c.now(), keys, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	// What the answer says does not matter; it is read so that the connection
	// can be used again.
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
	if response.StatusCode/100 == 2 {
		return nil
	}
	return &notify.RefusalError{
		Status:     response.StatusCode,
		Verdict:    verdict(response.StatusCode),
		RetryAfter: retryAfter(response.Header.Get("Retry-After")),
	}
}

// withoutURL is what failed, without the URL that net/http adds.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("ask the webhook: %w", err)
}

// verdict is what a status means for the notification (RFC 9110, section 15;
// RFC 8470; RFC 6585).
func verdict(status int) notify.Verdict {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return notify.NotNow
	// More often than not a URL or a key that is wrong.
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return notify.Unclear
	}
	switch status / 100 {
	case 4:
		return notify.Never
	case 5:
		return notify.Unclear
	default:
		return notify.NotNow
	}
}

// retryAfter reads the header's seconds (RFC 9110, section 10.2.3). A date, which
// needs clocks that agree, is not followed.
func retryAfter(value string) time.Duration {
	seconds, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

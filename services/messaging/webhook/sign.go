package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/marketplane/marketplane/api/contract"
)

// The headers of the specification.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// KeyFile reads keys from a file, anew at each call.
func KeyFile(path string) func() (contract.WebhookKeys, error) {
	return func() (contract.WebhookKeys, error) {
		content, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
		if err != nil {
			return nil, fmt.Errorf("read the webhook's signing keys: %w", err)
		}
		keys, err := contract.ParseWebhookKeys(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return keys, nil
	}
}

// signature is the header's value: one for each key, "v1" and HMAC-SHA256.
func signature(keys contract.WebhookKeys, id, timestamp string, body []byte) string {
	all := make([]string, 0, len(keys))
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

var errNoRequest = errors.New("the webhook's URL makes no request")

// newRequest makes a signed request. The timestamp is the attempt's, by which
// receivers refuse what is replayed.
func newRequest(ctx context.Context, url, id string, now time.Time, keys contract.WebhookKeys, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, errNoRequest
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "Marketplane")
	request.Header.Set(headerID, id)
	request.Header.Set(headerTimestamp, timestamp)
	request.Header.Set(headerSignature, signature(keys, id, timestamp, body))
	return request, nil
}

package contract

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	// WebhookKeyPrefix begins every key of the Standard Webhooks specification.
	WebhookKeyPrefix = "whsec_"
	// A key has minWebhookKey to maxWebhookKey bytes, as the specification says.
	minWebhookKey, maxWebhookKey = 24, 64
	// maxWebhookKeys is how many may be in use at a time: two while one follows
	// another.
	maxWebhookKeys = 4
	// maxWebhookKeyFile bounds what they are read from.
	maxWebhookKeyFile = 4 << 10
)

// WebhookKeys are what requests to a webhook are signed with, with each on its
// own: a receiver that knows one of them is content.
type WebhookKeys [][]byte

// ParseWebhookKeys reads keys, each WebhookKeyPrefix and base64, with white space
// between them. No error holds any part of them.
func ParseWebhookKeys(content []byte) (WebhookKeys, error) {
	if len(content) > maxWebhookKeyFile {
		return nil, fmt.Errorf("it must hold at most %d bytes of signing keys", maxWebhookKeyFile)
	}
	fields := bytes.Fields(content)
	if len(fields) == 0 || len(fields) > maxWebhookKeys {
		return nil, fmt.Errorf("it must hold 1 to %d signing keys, one a line", maxWebhookKeys)
	}
	keys := make(WebhookKeys, 0, len(fields))
	for i, field := range fields {
		encoded, ok := strings.CutPrefix(string(field), WebhookKeyPrefix)
		key, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if !ok || err != nil || len(key) < minWebhookKey || len(key) > maxWebhookKey {
			return nil, fmt.Errorf("signing key %d must be %s and %d to %d bytes in base64", i+1, WebhookKeyPrefix, minWebhookKey, maxWebhookKey)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

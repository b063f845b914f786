package contract_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/marketplane/marketplane/api/contract"
)

func webhookKey(size int) string {
	return contract.WebhookKeyPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", size)))
}

func TestParseWebhookKeys(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		content string
		want    int // 0: an error
	}{
		"the shortest":       {webhookKey(24), 1},
		"the longest":        {webhookKey(64) + "\n", 1},
		"two lines":          {webhookKey(32) + "\r\n" + webhookKey(24), 2},
		"nothing":            {" \n", 0},
		"without its prefix": {strings.TrimPrefix(webhookKey(24), contract.WebhookKeyPrefix), 0},
		"not base64":         {contract.WebhookKeyPrefix + strings.Repeat("!", 32), 0},
		"too short":          {webhookKey(23), 0},
		"too long":           {webhookKey(65), 0},
		"too many":           {strings.Repeat(webhookKey(24)+" ", 5), 0},
		"one is bad":         {webhookKey(24) + " whsec_a2", 0},
		"a large file":       {strings.Repeat(" ", 4<<10) + webhookKey(24), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := contract.ParseWebhookKeys([]byte(tt.content))
			if len(keys) != tt.want || (err == nil) != (tt.want > 0) {
				t.Errorf("%d keys, %v", len(keys), err)
			}
			if err != nil && strings.Contains(err.Error(), "a2") {
				t.Errorf("the error quotes a key: %v", err)
			}
		})
	}
}

func FuzzParseWebhookKeys(f *testing.F) {
	f.Add([]byte(webhookKey(24)))
	f.Add([]byte(webhookKey(64) + "\r\n" + webhookKey(32)))
	f.Add([]byte("whsec_\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		keys, err := contract.ParseWebhookKeys(content)
		if err == nil && (len(keys) == 0 || len(keys) > 4) {
			t.Errorf("%d keys", len(keys))
		}
		for _, key := range keys {
			if len(key) < 24 || len(key) > 64 {
				t.Errorf("a key of %d bytes", len(key))
			}
		}
	})
}

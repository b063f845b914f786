package auth

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestRefreshTokenRoundTrip(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	session, err := newSession(uuid.New(), start)
	if err != nil {
		t.Fatal(err)
	}
	token := formatRefreshToken(key, &session)
	if again := formatRefreshToken(key, &session); again != token {
		t.Error("the same state gives another token")
	}
	read, ok := parseRefreshToken(token)
	if !ok || !read.authentic(key, &session) || read.counter != session.Counter {
		t.Fatalf("the token does not hold: %+v, %t", read, ok)
	}

	otherSecret := session
	otherSecret.Secret[0] ^= 1
	otherID := session
	otherID.ID = uuid.New()
	counted := read
	counted.counter++
	forged := map[string]bool{
		"another key":     read.authentic(bytes.Repeat([]byte{8}, 32), &session),
		"another secret":  read.authentic(key, &otherSecret),
		"another session": read.authentic(key, &otherID),
		"another counter": counted.authentic(key, &session),
	}
	for name, authentic := range forged {
		if authentic {
			t.Errorf("%s: the token holds", name)
		}
	}
}

func TestParseRefreshTokenRefuses(t *testing.T) {
	session, err := newSession(uuid.New(), start)
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{7}, 32)
	token := formatRefreshToken(key, &session)
	zero := session
	zero.Counter = 0
	tests := map[string]string{
		"empty":          "",
		"only a prefix":  refreshTokenPrefix,
		"no prefix":      strings.TrimPrefix(token, refreshTokenPrefix),
		"short":          token[:len(token)-1],
		"long":           token + "A",
		"not base64url":  token[:len(token)-1] + "!",
		"line breaks":    token[:len(token)-2] + "\r\n",
		"counter zero":   formatRefreshToken(key, &zero),
		"huge counter":   refreshTokenPrefix + strings.Repeat("_", len(token)-len(refreshTokenPrefix)),
		"another scheme": "eyJhbGciOiJFUzI1NiJ9.e30.AA",
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			if read, ok := parseRefreshToken(token); ok {
				t.Errorf("read as %+v", read)
			}
		})
	}
}

// What parses must be exactly what we would write: no two spellings of a token.
func FuzzParseRefreshToken(f *testing.F) {
	session, err := newSession(uuid.New(), start)
	if err != nil {
		f.Fatal(err)
	}
	key := bytes.Repeat([]byte{7}, 32)
	f.Add(formatRefreshToken(key, &session))
	f.Add("")
	f.Add(refreshTokenPrefix + "\n")
	f.Fuzz(func(t *testing.T, token string) {
		read, ok := parseRefreshToken(token)
		if !ok {
			return
		}
		s := session
		s.ID, s.Counter = read.session, read.counter
		if read.authentic(key, &s) && formatRefreshToken(key, &s) != token {
			t.Errorf("%q is a second spelling of a good token", token)
		}
	})
}

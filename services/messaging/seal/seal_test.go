package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/marketplane/marketplane/services/messaging/seal"
)

func newSealer(t testing.TB, key byte, purpose string) *seal.Sealer {
	t.Helper()
	s, err := seal.New(bytes.Repeat([]byte{key}, seal.KeySize), purpose)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasSealedOpens(t *testing.T) {
	t.Parallel()
	// Two processes share the key alone.
	here, there := newSealer(t, 1, "sessions"), newSealer(t, 1, "sessions")
	for _, size := range []int{0, 1, 22, 100, seal.MaxPlain} {
		plain := bytes.Repeat([]byte{'x'}, size)
		text := here.Seal(plain)
		got, err := there.Open(text)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes come back as %d: %v", size, len(got), err)
		}
		if again := here.Seal(plain); again == text {
			t.Errorf("%d bytes are sealed the same way twice", size)
		}
		if strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Errorf("%q is not for URLs", text)
		}
	}
}

func TestForgedTexts(t *testing.T) {
	t.Parallel()
	s := newSealer(t, 1, "sessions")
	plain := []byte("10.0.0.1:8081 and some bytes")
	text := s.Seal(plain)
	texts := map[string]string{
		"empty":           "",
		"short":           "AAAA",
		"a line break":    text[:8] + "\n" + text[8:],
		"line breaks":     text[:8] + "\r\n\r\n" + text[12:],
		"padding":         text + "=",
		"longer":          text + "A",
		"cut":             text[:len(text)-1],
		"too long":        strings.Repeat("A", 1<<16),
		"another key":     newSealer(t, 2, "sessions").Seal(plain),
		"another purpose": newSealer(t, 1, "places").Seal(plain),
	}
	for name, forged := range texts {
		if got, err := s.Open(forged); !errors.Is(err, seal.ErrForged) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Every character counts, the last with the bits that no byte needs, too.
	for i := range text {
		for _, c := range []byte("AQg_") {
			if text[i] == c {
				continue
			}
			forged := []byte(text)
			forged[i] = c
			if got, err := s.Open(string(forged)); !errors.Is(err, seal.ErrForged) {
				t.Errorf("character %d changed: %q, %v", i, got, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	if _, err := seal.New(make([]byte, seal.KeySize-1), "sessions"); err == nil {
		t.Error("a short key is taken")
	}
	if _, err := seal.New(make([]byte, seal.KeySize), ""); err == nil {
		t.Error("no purpose is taken")
	}
}

func FuzzOpen(f *testing.F) {
	s := newSealer(f, 1, "sessions")
	f.Add(s.Seal([]byte("10.0.0.1:8081")), []byte{})
	f.Add("", []byte("plain"))
	f.Add("\n\r\n\r", []byte{0})
	f.Add(strings.Repeat("A", 38), []byte(nil))
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		if got, err := s.Open(text); err == nil && len(got)*4/3 > len(text) {
			t.Errorf("%q opens to %d bytes", text, len(got))
		}
		if len(plain) > seal.MaxPlain {
			return
		}
		if got, err := s.Open(s.Seal(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q comes back as %q, %v", plain, got, err)
		}
	})
}

// Package seal encrypts and authenticates short texts that clients carry and
// give back, such as the ids of their sessions: clients can neither read nor
// make them. It must not know what they say. A sealed text is no secret between
// a client and a server: whoever has it can present it, and again.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// KeySize is the least number of bytes of a key.
const KeySize = 32

// MaxPlain is how many bytes may be sealed at once.
const MaxPlain = 1024

// ErrForged is the error for every text that was not sealed with the same key,
// for the same purpose. It does not tell more.
var ErrForged = errors.New("seal: the text was not sealed here")

const (
	nonceSize = 12
	overhead  = nonceSize + 16 // and the tag
)

// Strict, so that a text has one form alone.
var encoding = base64.RawURLEncoding.Strict()

// maxText is what MaxPlain bytes become.
var maxText = encoding.EncodedLen(MaxPlain + overhead)

// Sealer seals for one purpose. It is safe for concurrent use.
type Sealer struct {
	aead cipher.AEAD
}

// New makes a sealer with a key of its own, which HKDF-SHA256 (RFC 5869) makes
// of the shared key and the purpose: what is sealed for one purpose opens for no
// other. All that share a key should seal fewer than 2^32 texts for a purpose:
// then nonces, which are random, will not meet (NIST SP 800-38D, section 8.3).
func New(key []byte, purpose string) (*Sealer, error) {
	if len(key) < KeySize {
		return nil, fmt.Errorf("seal: the key has %d bytes, not %d", len(key), KeySize)
	}
	if purpose == "" {
		return nil, errors.New("seal: no purpose")
	}
	own, err := hkdf.Key(sha256.New, key, nil, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("seal: derive the key for %s: %w", purpose, err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal returns the text for at most MaxPlain bytes, with AES-256-GCM: 28 bytes
// more than them, in base64url without padding (RFC 4648, section 5). It panics
// at more.
func (s *Sealer) Seal(plain []byte) string {
	if len(plain) > MaxPlain {
		panic(fmt.Sprintf("seal: %d bytes are too many", len(plain)))
	}
	return encoding.EncodeToString(s.aead.Seal(nil, nil, plain, nil)) //nolint:gosec // G407: it makes a nonce itself
}

// Open returns what was sealed, or ErrForged. It takes any text.
func (s *Sealer) Open(text string) ([]byte, error) {
	if len(text) > maxText {
		return nil, ErrForged
	}
	sealed, err := encoding.DecodeString(text)
	// The decoder skips line breaks, which are in nothing that was sealed.
	if err != nil || len(sealed) < overhead || encoding.EncodedLen(len(sealed)) != len(text) {
		return nil, ErrForged
	}
	plain, err := s.aead.Open(sealed[:0], nil, sealed, nil)
	if err != nil {
		return nil, ErrForged
	}
	return plain, nil
}

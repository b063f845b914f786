package contract

import "time"

// The times that tokens and their keys live by. auth and the verifiers keep
// them, and the operator rotates keys by them, so that no token is refused
// whose key a verifier could not know yet, or not any more.
const (
	// AccessTokenLife is how long an access token is good for.
	AccessTokenLife = 5 * time.Minute
	// TokenLeeway is how far clocks may differ.
	TokenLeeway = 30 * time.Second
	// JWKSMaxAge is how long a verifier may keep the public keys that it fetched
	// from auth (Cache-Control).
	JWKSMaxAge = time.Minute
	// KeyReload is how often the services read their mounted key files again.
	KeyReload = 10 * time.Second
	// KeyFileDelay is how late a kubelet may bring a changed Secret or ConfigMap
	// into a running pod: it looks at each pod every 60 to 90 s.
	KeyFileDelay = 2 * time.Minute
	// KeyLead is how long a new key is published before it signs: until then it
	// has reached auth's file and the verifiers' files, and the last copy of
	// auth's answer that lacks it is too old to be used.
	KeyLead = KeyFileDelay + KeyReload + JWKSMaxAge + TokenLeeway
	// KeyRetention is the least time that a key stays published after the next
	// one has begun to sign: until the last token of it has expired, one that was
	// signed by a process which learned late of the next key included.
	KeyRetention = AccessTokenLife + TokenLeeway + KeyLead
)

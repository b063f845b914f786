// Package fault is how the domains say what went wrong: a kind, a stable code
// and a message that is safe to show. It knows no transport; the adapters turn
// a fault into an HTTP problem or a WebSocket error in one place each.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind classes a fault by what its receiver can do about it.
type Kind int

// The kinds. Anything that is no *Error is an internal error.
const (
	// Internal is a failure of ours; its details are for the log alone.
	Internal Kind = iota
	// Malformed input could not be read at all.
	Malformed
	// Invalid input was read, and a value in it can't be accepted.
	Invalid
	// Unauthenticated: no proof of identity, or one that does not hold.
	Unauthenticated
	// Forbidden: known, but not allowed.
	Forbidden
	// NotFound: not there, or not for the caller's eyes.
	NotFound
	// Conflict: not in the state that the thing is in now.
	Conflict
	// Stale: the thing has changed since the caller saw it.
	Stale
	// TooMany: over a rate or a bound; try later.
	TooMany
	// Unavailable: something needed is down; the same request may do later.
	Unavailable
)

// Error is a fault. The zero Kind is Internal.
type Error struct {
	Kind Kind
	// Code is stable and machine-readable, in snake_case.
	Code string
	// Message is for people: it names the remedy and never echoes secrets.
	Message string
	// Pointer is the JSON pointer (RFC 6901) of the input that is wrong, if one is.
	Pointer string
	// RetryAfter says when to try again; zero where it is not known.
	RetryAfter time.Duration

	cause error
}

// Error gives the whole chain, for logs.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return e.Code + ": " + e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// New makes a fault.
func New(kind Kind, code, message string) *Error {
	return &Error{Kind: kind, Code: code, Message: message}
}

// At returns a copy that points at the input that is wrong.
func (e *Error) At(pointer string) *Error {
	c := *e
	c.Pointer = pointer
	return &c
}

// After returns a copy that says when to try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Because returns a copy with its cause, which only logs see.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Is makes errors.Is compare faults by code.
func (e *Error) Is(target error) bool {
	var other *Error
	return errors.As(target, &other) && other.Code == e.Code
}

// From returns err's fault, or one that says "internal" and hides the rest.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, "internal", "Something went wrong on our side. Try again; if it stays, report the request id.").Because(err)
}

// Package env reads a process's configuration from environment variables. It
// collects every mistake before it fails, so that one start tells all of them.
package env

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Source reads variables. Read everything, then ask Err once.
type Source struct {
	get  func(string) string
	errs []error
}

// New reads from get, usually os.Getenv.
func New(get func(string) string) *Source { return &Source{get: get} }

// Err joins what was wrong.
func (s *Source) Err() error { return errors.Join(s.errs...) }

// String returns a variable, or its default.
func (s *Source) String(name, byDefault string) string {
	if v := s.get(name); v != "" {
		return v
	}
	return byDefault
}

// Required returns a variable that must be set.
func (s *Source) Required(name string) string {
	v := s.get(name)
	if v == "" {
		s.fail(name, errors.New("must be set"))
	}
	return v
}

// List splits a variable at its commas and drops what is empty.
func (s *Source) List(name string) []string {
	var out []string
	for item := range strings.SplitSeq(s.get(name), ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// Bool returns true or false, or the default when the variable is not set.
func (s *Source) Bool(name string, byDefault bool) bool {
	switch s.String(name, strconv.FormatBool(byDefault)) {
	case "true":
		return true
	case "false":
		return false
	default:
		s.Fail(name, errors.New("must be true or false"))
		return byDefault
	}
}

// Duration returns a Go duration between low and high, or the default.
func (s *Source) Duration(name string, byDefault, low, high time.Duration) time.Duration {
	v := s.get(name)
	if v == "" {
		return byDefault
	}
	d, err := time.ParseDuration(v)
	switch {
	case err != nil:
		s.fail(name, errors.New("is not a duration such as 10s"))
	case d < low || d > high:
		s.fail(name, fmt.Errorf("must be from %s to %s", low, high))
	}
	return d
}

// Address returns a host:port to listen on, or the default.
func (s *Source) Address(name, byDefault string) string {
	v := s.String(name, byDefault)
	if _, _, err := net.SplitHostPort(v); err != nil {
		s.fail(name, errors.New("is not an address such as :8080 or 127.0.0.1:8080"))
	}
	return v
}

// File returns the path in a variable, which must name a readable file.
func (s *Source) File(name string) string {
	path := s.Required(name)
	if path == "" {
		return ""
	}
	if info, err := os.Stat(path); err != nil {
		s.fail(name, err)
	} else if info.IsDir() {
		s.fail(name, fmt.Errorf("%s is a folder, not a file", path))
	}
	return path
}

// Secret returns the content of the file that a variable names, without the
// white space around it. Errors name the file, never what is in it.
func (s *Source) Secret(name string) string {
	path := s.File(name)
	if path == "" {
		return ""
	}
	content, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		s.fail(name, err)
		return ""
	}
	if value := strings.TrimSpace(string(content)); value != "" {
		return value
	}
	s.fail(name, fmt.Errorf("%s is empty", path))
	return ""
}

// Fail adds a mistake that the caller found in a variable.
func (s *Source) Fail(name string, err error) { s.fail(name, err) }

func (s *Source) fail(name string, err error) {
	s.errs = append(s.errs, fmt.Errorf("%s: %w", name, err))
}

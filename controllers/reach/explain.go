package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// explain says why a connection failed, in words that stay the same as long as
// the cause does, and hold nothing of secrets: a condition is written anew with
// each new text, and read by people who may not read Secrets.
func explain(err error, secrets []string) string {
	var (
		dns         *net.DNSError
		unknown     x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate x509.CertificateInvalidError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		errno       syscall.Errno
		network     net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("the host %q is not known", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the host %q could not be looked up", dns.Name)
	case errors.As(err, &unknown):
		return "the server's certificate is signed by an authority that is not trusted"
	case errors.As(err, &hostname):
		return fmt.Sprintf("the server's certificate is not for the host %q", hostname.Host)
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return "the server's certificate has expired, or is not valid yet"
	case errors.As(err, &certificate):
		return "the server's certificate cannot be used: " + redact(certificate.Error(), secrets)
	case errors.As(err, &record):
		return "the server does not speak TLS"
	case errors.As(err, &alert):
		return "the server ends the TLS handshake: " + alert.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return fmt.Sprintf("no answer within %s", Timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	default:
		return redact(innermost(err).Error(), secrets)
	}
}

// innermost is the error that began it: what wraps it quotes whole
// configurations.
func innermost(err error) error {
	for {
		switch wrapped := err.(type) { //nolint:errorlint // It takes the chain apart.
		case interface{ Unwrap() error }:
			inner := wrapped.Unwrap()
			if inner == nil {
				return err
			}
			err = inner
		case interface{ Unwrap() []error }:
			all := wrapped.Unwrap()
			if len(all) == 0 {
				return err
			}
			err = all[0]
		default:
			return err
		}
	}
}

// longestQuote bounds what is told of another's words, in bytes.
const longestQuote = 300

// redact takes every secret, as it is and as a URL holds it, out of a text, and
// bounds it.
func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		for _, form := range []string{
			secret, strings.TrimSpace(secret), url.QueryEscape(secret), url.PathEscape(secret),
			url.UserPassword("", secret).String(), fmt.Sprintf("%q", secret),
		} {
			if form = strings.Trim(form, `":`); form != "" {
				text = strings.ReplaceAll(text, form, "***")
			}
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longestQuote {
		text = strings.ToValidUTF8(text[:longestQuote], "") + "…"
	}
	return text
}

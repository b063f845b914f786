package auth

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// Bounds of what an account is made of.
const (
	// MinPassword is NIST SP 800-63B-4's for a password that is the only factor,
	// in code points (section 3.1.1.2); it asks for no other rules.
	MinPassword = 15
	// MaxPassword bounds the work, in code points.
	MaxPassword = 128
	// MaxEmail is in octets (RFC 5321, section 4.5.3.1.3, without the brackets).
	MaxEmail = 254
	// MaxDisplayName is in code points.
	MaxDisplayName = 80
)

var (
	errEmail = fault.New(fault.Invalid, "email_invalid",
		"The email is not an address such as name@example.com.").At("/email")
	errDisplayName = fault.New(fault.Invalid, "display_name_invalid",
		fmt.Sprintf("The display name must have 1 to %d characters, all of them printable.", MaxDisplayName)).At("/display_name")
	errPassword = fault.New(fault.Invalid, "password_length",
		fmt.Sprintf("The password must have %d to %d characters; any characters do.", MinPassword, MaxPassword)).At("/password")
)

// parseEmail trims an address and checks its syntax: a bare addr-spec of RFC
// 5322, without a name, comments or quoting.
func parseEmail(email string) (string, error) {
	email = strings.TrimSpace(email)
	if len(email) > MaxEmail || !utf8.ValidString(email) {
		return "", errEmail
	}
	address, err := mail.ParseAddress(email)
	if err != nil || address.Address != email {
		return "", errEmail
	}
	return email, nil
}

// accountKey is what failed log-ins of one account are counted under, whether
// or not there is such an account.
func accountKey(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// parseDisplayName takes what names are written with in any script: ideographic
// spaces and the joiners of Persian or Hindi too, but nothing that controls how
// text is shown, and nothing that shows nothing.
func parseDisplayName(name string) (string, error) {
	name = strings.TrimSpace(name)
	bad := func(r rune) bool { return !unicode.IsGraphic(r) && r != '\u200c' && r != '\u200d' }
	if utf8.RuneCountInString(name) > MaxDisplayName || strings.ContainsFunc(name, bad) || !strings.ContainsFunc(name, unicode.IsPrint) {
		return "", errDisplayName
	}
	return name, nil
}

// normalPassword makes equal what looks equal, whichever keyboard wrote it:
// Unicode's normalization form C (as RFC 8265, section 4.2.2, wants it).
func normalPassword(password string) string { return norm.NFC.String(password) }

func parsePassword(password string) (string, error) {
	password = normalPassword(password)
	if n := utf8.RuneCountInString(password); n < MinPassword || n > MaxPassword {
		return "", errPassword
	}
	return password, nil
}

package tasks

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// Bounds of what people write, in characters.
const (
	MaxTitle       = 120
	MaxDescription = 4000
	MaxLocation    = 200
	MaxMessage     = 2000
	MaxNote        = 2000
)

// MaxAmountMinor bounds a budget or price: ten million in a currency with two
// decimals. It is far below what would overflow a sum.
const MaxAmountMinor = 1_000_000_000

// Money is an amount in a currency's minor unit, such as cents (ISO 4217).
type Money struct {
	AmountMinor int64
	Currency    string
}

func (m Money) check(pointer string) error {
	if m.AmountMinor < 1 || m.AmountMinor > MaxAmountMinor {
		return invalid(pointer+"/amount_minor", fmt.Sprintf("The amount must be from 1 to %d.", MaxAmountMinor))
	}
	if len(m.Currency) != 3 || strings.Trim(m.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return invalid(pointer+"/currency", "The currency must be a code of three capital letters, such as EUR.")
	}
	return nil
}

// clean returns the draft without the white space around its texts, or a fault.
func (d Draft) clean() (Draft, error) {
	var err error
	if d.Title, err = text("/title", d.Title, 1, MaxTitle, false); err != nil {
		return d, err
	}
	if d.Description, err = text("/description", d.Description, 1, MaxDescription, true); err != nil {
		return d, err
	}
	if d.Location, err = text("/location", d.Location, 0, MaxLocation, false); err != nil {
		return d, err
	}
	return d, d.Budget.check("/budget")
}

// clean is like Draft's. The price must be in the currency of the budget.
func (b Bid) clean(budget Money) (Bid, error) {
	var err error
	if b.Message, err = text("/message", b.Message, 0, MaxMessage, true); err != nil {
		return b, err
	}
	if err := b.Price.check("/price"); err != nil {
		return b, err
	}
	if b.Price.Currency != budget.Currency {
		return b, invalid("/price/currency", "The price must be in the currency of the task's budget.")
	}
	return b, nil
}

// text trims s and checks its length. Control characters, some of which
// PostgreSQL can't store, are refused; tabs and new lines may stand in texts of
// several lines.
func text(pointer, s string, low, high int, lines bool) (string, error) {
	s = strings.TrimSpace(s)
	bad := func(r rune) bool {
		return unicode.IsControl(r) && (!lines || r != '\n' && r != '\r' && r != '\t')
	}
	switch n := utf8.RuneCountInString(s); {
	case !utf8.ValidString(s) || strings.ContainsFunc(s, bad):
		return "", invalid(pointer, "The text must not have control characters.")
	case n < low:
		return "", invalid(pointer, "The text must not be empty.")
	case n > high:
		return "", invalid(pointer, fmt.Sprintf("The text must have at most %d characters.", high))
	}
	return s, nil
}

// invalid has the code of every other input that is not acceptable; the pointer
// tells them apart.
func invalid(pointer, message string) error {
	return fault.New(fault.Invalid, "invalid", message).At(pointer)
}

package messaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/marketplane/marketplane/services/internal/fault"
)

const (
	// MaxBody is how large a message's body may be, in bytes of JSON.
	MaxBody = 32 << 10
	// maxBodyDepth bounds nesting; the limits of parsers further on are unlike.
	maxBodyDepth = 32
	// maxNumber bounds the length of a number's text: PostgreSQL's numeric and
	// JavaScript's double take what is shorter, exponents aside.
	maxNumber = 64
	// maxExponent bounds a number's exponent to a double's (IEEE 754).
	maxExponent = 308
)

var (
	errBodyTooLarge = fault.New(fault.Invalid, "body_too_large", "The body is larger than 32 KiB.").At("/body")
	errBodyShape    = fault.New(fault.Invalid, "body_invalid", "The body must be a JSON object that is not empty.").At("/body")
	errBodyDeep     = fault.New(fault.Invalid, "body_invalid", "The body is nested too deeply.").At("/body")
	errBodyText     = fault.New(fault.Invalid, "body_invalid", "The body holds text that is not Unicode, or a NUL character.").At("/body")
	errBodyNumber   = fault.New(fault.Invalid, "body_invalid", "The body holds a number that is too long, or too many with great exponents.").At("/body")
)

// checkBody returns the body without insignificant white space. What it lets
// through, every store and client can hold.
func checkBody(body json.RawMessage) (json.RawMessage, error) {
	if len(body) > MaxBody {
		return nil, errBodyTooLarge
	}
	if !utf8.Valid(body) {
		return nil, errBodyText
	}
	if err := checkTokens(body); err != nil {
		return nil, err
	}
	if !surrogatesPaired(body) {
		return nil, errBodyText
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return nil, errBodyShape.Because(err)
	}
	if compact.String() == "{}" {
		return nil, errBodyShape
	}
	if err := checkAttachments(compact.Bytes()); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

func checkTokens(body []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	depth, digits := 0, 0
	for first := true; ; first = false {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errBodyShape.Because(err)
		}
		if first && token != json.Delim('{') {
			return errBodyShape
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxBodyDepth {
				return errBodyDeep
			}
		case string:
			if strings.ContainsRune(t, 0) {
				return errBodyText
			}
		case json.Number:
			if len(t) > maxNumber {
				return errBodyNumber
			}
			// PostgreSQL gives numbers back without exponents: seven bytes would
			// become a hundred thousand, in every stream and every history.
			exponent, ok := exponentOf(string(t))
			if digits += exponent; !ok || digits > MaxBody {
				return errBodyNumber
			}
		}
	}
}

// exponentOf returns the size of the exponent of a JSON number; ok is false if
// it is greater than maxExponent.
func exponentOf(number string) (size int, ok bool) {
	i := strings.IndexAny(number, "eE")
	if i < 0 {
		return 0, true
	}
	size, err := strconv.Atoi(number[i+1:])
	if size < 0 {
		size = -size
	}
	return size, err == nil && size <= maxExponent
}

// surrogatesPaired says whether all surrogates among the \u escapes of valid
// JSON are pairs (RFC 8259, section 7). Decoders replace the others; PostgreSQL
// refuses them.
func surrogatesPaired(body []byte) bool {
	waiting := false // for a low surrogate
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			if waiting {
				return false
			}
			continue
		}
		i++ // valid JSON: an escape is complete
		if body[i] != 'u' {
			if waiting {
				return false
			}
			continue
		}
		unit, err := strconv.ParseUint(string(body[i+1:i+5]), 16, 16)
		if err != nil {
			return false
		}
		i += 4
		isLow := unit >= 0xDC00 && unit <= 0xDFFF
		if isLow != waiting {
			return false
		}
		waiting = unit >= 0xD800 && unit <= 0xDBFF
	}
	return true
}

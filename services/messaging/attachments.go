package messaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// A body's top-level attachments are the one part of it that is understood here:
// files that lie elsewhere, told by their URL and what a client needs to show
// them. Nothing is fetched; whoever serves the files says who may see them.
const (
	attachmentsField = "attachments"
	// maxAttachments is how many attachments a message has at most.
	maxAttachments = 10
	// maxAttachmentURL is how many bytes an attachment's URL has at most.
	maxAttachmentURL = 2048
	// maxAttachmentName is how many characters an attachment's name has at most.
	maxAttachmentName = 255
	// maxAttachmentSize is how large an attachment may be, in bytes.
	maxAttachmentSize = 100 << 20
)

// attachmentTypes are the media types that attachments may have; "image/" is
// every one that begins so.
var attachmentTypes = []string{"image/", "video/", "audio/", "application/pdf", "text/plain"}

// mediaType is RFC 6838's form, section 4.2, in lower case and without
// parameters.
var mediaType = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$`)

// attachmentFault points at what is wrong; pointer begins behind the attachments.
func attachmentFault(pointer, message string) error {
	return fault.New(fault.Invalid, "attachment_invalid", message).At("/body/" + attachmentsField + pointer)
}

// checkAttachments checks the attachments of a body that has passed the other
// checks.
func checkAttachments(body []byte) error {
	// A name may be spelled with escapes, too; then look closer.
	if !bytes.Contains(body, []byte(attachmentsField)) && !bytes.Contains(body, []byte(`\u`)) {
		return nil
	}
	fields, repeated, err := objectFields(body)
	if err != nil {
		return errBodyShape.Because(err)
	}
	raw, ok := fields[attachmentsField]
	if !ok {
		return nil
	}
	if repeated == attachmentsField {
		return attachmentFault("", "The body names its attachments twice.")
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return attachmentFault("", "The attachments must be an array of objects.")
	}
	if len(list) > maxAttachments {
		return attachmentFault("", "A message has at most 10 attachments.")
	}
	for i, attachment := range list {
		if err := checkAttachment("/"+strconv.Itoa(i), attachment); err != nil {
			return err
		}
	}
	return nil
}

// attachmentChecks are an attachment's fields, all of which it must have, with
// what each must be.
var attachmentChecks = []struct {
	name, must string
	good       func(value json.RawMessage) bool
}{
	{"url", "url must be an absolute https URL of at most 2,048 bytes, without user and password.", goodURL},
	{"name", "name must be a file's name of 1 to 255 characters, without control characters.", goodName},
	{"content_type", "content_type must be image/*, video/*, audio/*, application/pdf or text/plain, in lower case and without parameters.", goodType},
	{"size", "size must be the file's, in bytes: an integer from 1 to 104857600 (100 MiB).", goodSize},
}

func checkAttachment(pointer string, attachment json.RawMessage) error {
	if attachment[0] != '{' {
		return attachmentFault(pointer, "An attachment must be an object with url, name, content_type and size.")
	}
	fields, repeated, err := objectFields(attachment)
	if err != nil {
		return errBodyShape.Because(err)
	}
	if repeated != "" {
		return attachmentFault(pointer, "The attachment has a field twice.")
	}
	for _, check := range attachmentChecks {
		if value, ok := fields[check.name]; !ok || !check.good(value) {
			return attachmentFault(pointer+"/"+check.name, check.must)
		}
	}
	if len(fields) > len(attachmentChecks) {
		return attachmentFault(pointer, "An attachment has the fields url, name, content_type and size alone.")
	}
	return nil
}

var errNoObject = errors.New("not an object")

// objectFields returns a JSON object's fields by their exact names, and one that
// is there more than once, if any: which of them counts, parsers don't agree.
func objectFields(object []byte) (fields map[string]json.RawMessage, repeated string, err error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, "", errNoObject
	}
	fields = map[string]json.RawMessage{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, "", fmt.Errorf("read a name: %w", err)
		}
		name, _ := token.(string) // an object's names are strings
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, "", fmt.Errorf("read a value: %w", err)
		}
		if _, ok := fields[name]; ok && (repeated == "" || name == attachmentsField) {
			repeated = name
		}
		fields[name] = value
	}
	return fields, repeated, nil
}

// text returns a JSON string's value.
func text(value json.RawMessage) (string, bool) {
	if value[0] != '"' { // null would pass otherwise
		return "", false
	}
	var out string
	err := json.Unmarshal(value, &out)
	return out, err == nil
}

func goodURL(value json.RawMessage) bool {
	raw, ok := text(value)
	if !ok || len(raw) > maxAttachmentURL {
		return false
	}
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil &&
		!strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func goodName(value json.RawMessage) bool {
	name, ok := text(value)
	n := utf8.RuneCountInString(name)
	return ok && n >= 1 && n <= maxAttachmentName && !strings.ContainsFunc(name, unicode.IsControl)
}

func goodType(value json.RawMessage) bool {
	name, ok := text(value)
	return ok && mediaType.MatchString(name) && slices.ContainsFunc(attachmentTypes, func(allowed string) bool {
		return name == allowed || strings.HasSuffix(allowed, "/") && strings.HasPrefix(name, allowed)
	})
}

func goodSize(value json.RawMessage) bool {
	size, err := strconv.ParseInt(string(value), 10, 64)
	return err == nil && size >= 1 && size <= maxAttachmentSize
}

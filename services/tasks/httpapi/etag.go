package httpapi

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/tasks"
)

// etag is the strong validator of a version (RFC 9110, section 8.8.3).
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// maxIfMatch bounds the header: nobody knows that many versions.
const maxIfMatch = 1024

// entityTag is RFC 9110's, with its optional weakness.
var entityTag = regexp.MustCompile(`^(W/)?"([\x21\x23-\x7e]*)"$`)

var errIfMatch = fault.New(fault.Malformed, "if_match_malformed",
	`Send If-Match as the ETag was given, quotes included, such as "3".`)

// expectedOf reads an If-Match header (RFC 9110, section 13.1.1). Tags that no
// version has, weak ones among them, match nothing.
func expectedOf(header string) (tasks.Expected, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return nil, nil // any version; that there is one is checked anyway
	}
	if len(header) > maxIfMatch {
		return nil, errIfMatch
	}
	expected := tasks.Expected{}
	for tag := range strings.SplitSeq(header, ",") {
		match := entityTag.FindStringSubmatch(strings.TrimSpace(tag))
		if match == nil {
			return nil, errIfMatch
		}
		version, err := strconv.ParseInt(match[2], 10, 64)
		if match[1] == "" && err == nil && etag(version) == `"`+match[2]+`"` {
			expected = append(expected, version)
		}
	}
	return expected, nil
}

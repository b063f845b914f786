// Package debian makes images out of Debian packages, from the mirror that
// the machine itself uses.
package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one apt source of binary packages.
type source struct {
	uri, suite string
	components []string
}

// findMirror returns the URI of the first source in /etc/apt that has the
// suite's main component.
func findMirror(etcApt, suite string) (string, error) {
	var files []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := filepath.Glob(filepath.Join(etcApt, pattern))
		if err != nil {
			return "", fmt.Errorf("list apt sources: %w", err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read apt source: %w", err)
		}
		parse := parseOneLine
		if strings.HasSuffix(file, ".sources") {
			parse = parseDeb822
		}
		for _, s := range parse(string(data)) {
			if s.suite == suite && slices.Contains(s.components, "main") {
				return s.uri, nil
			}
		}
	}
	return "", fmt.Errorf("no apt source in %s has suite %s, component main", etcApt, suite)
}

// parseOneLine reads the one-line format: `deb [options] uri suite component...`
// (sources.list(5)).
func parseOneLine(text string) []source {
	var sources []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '\t' && rest[0] != '[') {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, after, closed := strings.Cut(rest, "]")
			if !closed {
				continue
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue // a flat repository, or nonsense
		}
		sources = append(sources, source{uri: fields[0], suite: fields[1], components: fields[2:]})
	}
	return sources
}

// parseDeb822 reads the format of fields and stanzas (sources.list(5)).
func parseDeb822(text string) []source {
	var sources []source
	stanza := map[string][]string{}
	field := ""
	flush := func() {
		enabled := len(stanza["enabled"]) == 0 || !strings.EqualFold(stanza["enabled"][0], "no")
		if enabled && slices.Contains(stanza["types"], "deb") {
			for _, uri := range stanza["uris"] {
				for _, suite := range stanza["suites"] {
					sources = append(sources, source{uri: uri, suite: suite, components: stanza["components"]})
				}
			}
		}
		stanza, field = map[string][]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			stanza[field] = append(stanza[field], strings.Fields(line)...)
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			field = strings.ToLower(strings.TrimSpace(name))
			stanza[field] = strings.Fields(value)
		}
	}
	flush()
	return sources
}

package messaging

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestAttachmentsAreChecked(t *testing.T) {
	t.Parallel()
	const good = `{"url":"https://files.example.com/a.jpg?sig=x","name":"a.jpg","content_type":"image/jpeg","size":1}`
	change := func(from, to string) string {
		return `{"attachments":[` + good + `,` + strings.Replace(good, from, to, 1) + `]}`
	}
	many := func(n int) string { return `{"attachments":[` + strings.Repeat(good+",", n-1) + good + `]}` }
	tests := map[string]struct {
		body        string
		wantPointer string // "" where it is taken
	}{
		"one":                   {`{"text":"look","attachments":[` + good + `]}`, ""},
		"none":                  {`{"attachments":[]}`, ""},
		"as many as may be":     {many(maxAttachments), ""},
		"too many":              {many(maxAttachments + 1), "/body/attachments"},
		"further down":          {`{"quoted":{"attachments":7}}`, ""},
		"not an array":          {`{"attachments":{}}`, "/body/attachments"},
		"null":                  {`{"attachments":null}`, "/body/attachments"},
		"twice":                 {`{"attachments":[],"attachments":[]}`, "/body/attachments"},
		"spelled with escapes":  {`{"\u0061ttachments":7}`, "/body/attachments"},
		"once so and once so":   {`{"attachments":[],"a":1,"a":2,"\u0061ttachments":[]}`, "/body/attachments"},
		"other names twice":     {`{"a":1,"a":2,"attachments":[]}`, ""},
		"of text":               {`{"attachments":["https://files.example.com/a.jpg"]}`, "/body/attachments/0"},
		"field more":            {change(`"size":1`, `"size":1,"width":3`), "/body/attachments/1"},
		"field twice":           {change(`"size":1`, `"size":1,"size":2`), "/body/attachments/1"},
		"other case":            {change(`"url"`, `"URL"`), "/body/attachments/1/url"},
		"no name":               {change(`"name":"a.jpg",`, ``), "/body/attachments/1/name"},
		"http":                  {change(`https:`, `http:`), "/body/attachments/1/url"},
		"javascript":            {change(`https://files.example.com/a.jpg?sig=x`, `javascript:alert(1)`), "/body/attachments/1/url"},
		"no host":               {change(`files.example.com`, ``), "/body/attachments/1/url"},
		"a port alone":          {change(`files.example.com`, `:443`), "/body/attachments/1/url"},
		"relative":              {change(`https://files.example.com`, ``), "/body/attachments/1/url"},
		"user in the URL":       {change(`https://`, `https://me:secret@`), "/body/attachments/1/url"},
		"space in the URL":      {change(`a.jpg?`, `a b.jpg?`), "/body/attachments/1/url"},
		"line end in the URL":   {change(`a.jpg?`, `a\n.jpg?`), "/body/attachments/1/url"},
		"longest URL":           {change(`sig=x`, `sig=`+strings.Repeat("x", maxAttachmentURL-len("https://files.example.com/a.jpg?sig="))), ""},
		"longer URL":            {change(`sig=x`, `sig=`+strings.Repeat("x", maxAttachmentURL+1-len("https://files.example.com/a.jpg?sig="))), "/body/attachments/1/url"},
		"URL is null":           {change(`"https://files.example.com/a.jpg?sig=x"`, `null`), "/body/attachments/1/url"},
		"empty name":            {change(`"name":"a.jpg"`, `"name":""`), "/body/attachments/1/name"},
		"longest name":          {change(`"name":"a.jpg"`, `"name":"`+strings.Repeat("é", maxAttachmentName)+`"`), ""},
		"longer name":           {change(`"name":"a.jpg"`, `"name":"`+strings.Repeat("é", maxAttachmentName+1)+`"`), "/body/attachments/1/name"},
		"control in the name":   {change(`"name":"a.jpg"`, `"name":"a\u0007"`), "/body/attachments/1/name"},
		"name is a number":      {change(`"name":"a.jpg"`, `"name":7`), "/body/attachments/1/name"},
		"video":                 {change(`image/jpeg`, `video/mp4`), ""},
		"sound":                 {change(`image/jpeg`, `audio/ogg`), ""},
		"PDF":                   {change(`image/jpeg`, `application/pdf`), ""},
		"text":                  {change(`image/jpeg`, `text/plain`), ""},
		"page":                  {change(`image/jpeg`, `text/html`), "/body/attachments/1/content_type"},
		"program":               {change(`image/jpeg`, `application/octet-stream`), "/body/attachments/1/content_type"},
		"begins like PDF":       {change(`image/jpeg`, `application/pdfx`), "/body/attachments/1/content_type"},
		"type alone":            {change(`image/jpeg`, `image/`), "/body/attachments/1/content_type"},
		"type in upper case":    {change(`image/jpeg`, `Image/jpeg`), "/body/attachments/1/content_type"},
		"type with parameters":  {change(`image/jpeg`, `text/plain; charset=utf-8`), "/body/attachments/1/content_type"},
		"empty file":            {change(`"size":1`, `"size":0`), "/body/attachments/1/size"},
		"negative size":         {change(`"size":1`, `"size":-1`), "/body/attachments/1/size"},
		"largest":               {change(`"size":1`, fmt.Sprintf(`"size":%d`, maxAttachmentSize)), ""},
		"larger":                {change(`"size":1`, fmt.Sprintf(`"size":%d`, maxAttachmentSize+1)), "/body/attachments/1/size"},
		"size with a fraction":  {change(`"size":1`, `"size":1.5`), "/body/attachments/1/size"},
		"size with an exponent": {change(`"size":1`, `"size":1e3`), "/body/attachments/1/size"},
		"size as text":          {change(`"size":1`, `"size":"1"`), "/body/attachments/1/size"},
		"size with white space": {change(`"size":1`, `"size": 1 `), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := checkBody([]byte(tt.body))
			var f *fault.Error
			if tt.wantPointer == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.As(err, &f) || f.Code != "attachment_invalid" {
				t.Fatalf("got %v, want attachment_invalid", err)
			}
			if diff := cmp.Diff(tt.wantPointer, f.Pointer); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzCheckAttachments(f *testing.F) {
	f.Add([]byte(`{"attachments":[{"url":"https://files.example.com/a","name":"a","content_type":"image/png","size":1}]}`))
	f.Add([]byte(`{"\u0061ttachments":[null,7,{}],"attachments":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := checkBody(body); err != nil {
			return
		}
		fields, repeated, err := objectFields(body)
		if err != nil || repeated == attachmentsField {
			t.Fatalf("%q is taken: %v, %q", body, err, repeated)
		}
		raw, ok := fields[attachmentsField]
		if ok && raw[0] != '[' {
			t.Errorf("%q is taken", body)
		}
	})
}

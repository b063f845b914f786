package databaseurl_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/databaseurl"
)

func TestParse(t *testing.T) {
	ca := &v1alpha1.SecretKeyReference{Name: "ca"}
	tests := map[string]struct {
		url       string
		tls       *v1alpha1.DatabaseTLS
		wantAdmin string
		wantRole  string
	}{
		"verifies everything by default": {
			url:       "postgres://admin:s3cret@db.example.com:5433/shop",
			wantAdmin: "postgres://admin:s3cret@db.example.com:5433/shop?sslmode=verify-full",
			wantRole:  "postgres://role:pass@db.example.com:5433/shop?sslmode=verify-full",
		},
		"the URL's own sslmode": {
			url:       " postgresql://admin:s3cret@db/shop?sslmode=require\n",
			wantAdmin: "postgres://admin:s3cret@db/shop?sslmode=require",
			wantRole:  "postgres://role:pass@db/shop?sslmode=require",
		},
		"the field agrees": {
			url:       "postgres://admin:s3cret@db/shop?sslmode=disable",
			tls:       &v1alpha1.DatabaseTLS{Mode: v1alpha1.DatabaseTLSDisable},
			wantAdmin: "postgres://admin:s3cret@db/shop?sslmode=disable",
			wantRole:  "postgres://role:pass@db/shop?sslmode=disable",
		},
		"certificates": {
			url:       "postgres://admin:s3cret@db/shop",
			tls:       &v1alpha1.DatabaseTLS{CASecretRef: ca},
			wantAdmin: "postgres://admin:s3cret@db/shop?sslmode=verify-full&sslrootcert=/certs/ca.crt",
			wantRole:  "postgres://role:pass@db/shop?sslmode=verify-full&sslrootcert=/certs/ca.crt",
		},
		"certificates that are required are verified": {
			url:       "postgres://admin:s3cret@db/shop",
			tls:       &v1alpha1.DatabaseTLS{CASecretRef: ca, Mode: v1alpha1.DatabaseTLSRequire},
			wantAdmin: "postgres://admin:s3cret@db/shop?sslmode=verify-ca&sslrootcert=/certs/ca.crt",
			wantRole:  "postgres://role:pass@db/shop?sslmode=verify-ca&sslrootcert=/certs/ca.crt",
		},
		"special characters, several hosts, parameters": {
			url:       "postgres://ad%40min:s%2F3%3Fcret%23@a:5432,b:5433/sh%20op?target_session_attrs=read-write&application_name=x&connect_timeout=3&channel_binding=require",
			wantAdmin: "postgres://ad%40min:s%2F3%3Fcret%23@a:5432,b:5433/sh%20op?channel_binding=require&sslmode=verify-full&target_session_attrs=read-write",
			wantRole:  "postgres://role:pass@a:5432,b:5433/sh%20op?channel_binding=require&sslmode=verify-full&target_session_attrs=read-write",
		},
		"IPv6": {
			url:       "postgres://admin:s3cret@[fd00::1]:5432/shop?sslmode=disable",
			wantAdmin: "postgres://admin:s3cret@[fd00::1]:5432/shop?sslmode=disable",
			wantRole:  "postgres://role:pass@[fd00::1]:5432/shop?sslmode=disable",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := databaseurl.Parse(tt.url, tt.tls)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.AdminURL("/certs/ca.crt"); got != tt.wantAdmin {
				t.Errorf("admin's URL = %s\nwant %s", got, tt.wantAdmin)
			}
			if got := s.RoleURL("role", "pass", "/certs/ca.crt"); got != tt.wantRole {
				t.Errorf("role's URL = %s\nwant %s", got, tt.wantRole)
			}
			// The driver reads it, too.
			if _, err := pgx.ParseConfig(s.RoleURL("role", "pass", "")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const secret = "hunter2"
	tests := map[string]struct {
		url  string
		tls  *v1alpha1.DatabaseTLS
		want string
	}{
		"no URL":                      {url: "hunter2\x7f://", want: "it is not a URL"},
		"key and value":               {url: "host=db password=hunter2", want: "its scheme is not postgres"},
		"another scheme":              {url: "mysql://admin:hunter2@db/shop", want: "its scheme is not postgres"},
		"no user":                     {url: "postgres://db/shop", want: "it names no user"},
		"no password":                 {url: "postgres://admin@db/shop", want: "it has no password"},
		"no host":                     {url: "postgres://admin:hunter2@/shop", want: "it names no host"},
		"a host missing in the list":  {url: "postgres://admin:hunter2@a,,b/shop", want: "it names no host"},
		"no database":                 {url: "postgres://admin:hunter2@db", want: "it names no database"},
		"a folder":                    {url: "postgres://admin:hunter2@db/var/run", want: "it names no database"},
		"a socket":                    {url: "postgres://admin:hunter2@%2Fvar%2Frun/shop", want: "it is not a URL"},
		"an unescaped # in it":        {url: "postgres://admin:hun#ter2@db/shop", want: ""},
		"a # at the end":              {url: "postgres://admin:hunter2@db/shop#x", want: "write %23 in its place"},
		"an unescaped / in it":        {url: "postgres://admin:hunter2/x@db/shop", want: ""},
		"an unescaped ? in it":        {url: "postgres://admin:?hunter2@db/shop", want: ""},
		"parameters that break":       {url: "postgres://admin:x@db/shop?hunter2=%zz", want: "its parameters cannot be read"},
		"a parameter nobody knows":    {url: "postgres://admin:x@db/shop?hunter2=1", want: "it has a parameter that is not allowed"},
		"twice the same":              {url: "postgres://admin:x@db/shop?sslmode=disable&sslmode=require", want: "twice the same"},
		"sslrootcert":                 {url: "postgres://admin:x@db/shop?sslrootcert=/hunter2", want: "database.external.tls.caSecretRef"},
		"sslcert":                     {url: "postgres://admin:x@db/shop?sslcert=/hunter2", want: "client certificates are not supported"},
		"a service file":              {url: "postgres://admin:x@db/shop?servicefile=/hunter2", want: "files are not read"},
		"a password file":             {url: "postgres://admin:x@db/shop?passfile=/hunter2", want: "files are not read"},
		"a password among parameters": {url: "postgres://admin:x@db/shop?password=hunter2", want: "its parameter password is not allowed"},
		"options":                     {url: "postgres://admin:x@db/shop?options=-c%20role%3Dhunter2", want: "its parameter options is not allowed"},
		"a standby":                   {url: "postgres://admin:x@db/shop?target_session_attrs=standby", want: "must be one of any, read-write, primary"},
		"prefer":                      {url: "postgres://admin:hunter2@db/shop?sslmode=prefer", want: "promises nothing"},
		"an unknown sslmode":          {url: "postgres://admin:x@db/shop?sslmode=hunter2", want: "must be one of disable"},
		"sslmode against the field": {
			url: "postgres://admin:hunter2@db/shop?sslmode=disable", tls: &v1alpha1.DatabaseTLS{Mode: v1alpha1.DatabaseTLSVerifyFull},
			want: "its parameter sslmode=disable contradicts database.external.tls.mode: VerifyFull",
		},
		"no TLS with certificates": {
			url:  "postgres://admin:hunter2@db/shop?sslmode=disable",
			tls:  &v1alpha1.DatabaseTLS{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca"}},
			want: "contradicts database.external.tls.caSecretRef",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := databaseurl.Parse(tt.url, tt.tls)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q lacks %q", err, tt.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q quotes the URL", err)
			}
		})
	}
}

// Whatever is put into a URL, no error quotes it, and what is accepted is read
// by the driver as what it was meant to be.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"postgres://admin:hunter2@db/shop", "postgres://a:b@h1:1,h2:2/d?sslmode=require", "postgres://a:b#c@h/d", "postgres://a:b@h/d?x=y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, prefix string) {
		const secret = "Zq9Zq9Zq9"
		raw := prefix + secret
		s, err := databaseurl.Parse(raw, nil)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error quotes the URL: %v", err)
			}
			return
		}
		config, err := pgx.ParseConfig(s.RoleURL("role", "pass", ""))
		if err != nil {
			return // The operator says so, without quoting it.
		}
		if config.User != "role" || config.Password != "pass" {
			t.Fatalf("%q: the role's URL signs in as %q", raw, config.User)
		}
	})
}

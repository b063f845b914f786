package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"time"

	"github.com/marketplane/marketplane/services/client"
	"github.com/marketplane/marketplane/services/smoke"
)

// runSmoke walks the story against a running deployment.
func runSmoke(ctx context.Context, in invocation) error {
	flags := flag.NewFlagSet("smoke", flag.ContinueOnError)
	flags.SetOutput(in.stderr)
	var (
		base      = flags.String("url", "", "base `URL` of the deployment, as in http://127.0.0.1:8080")
		auth      = flags.String("auth-url", "", "base `URL` of auth, where it is another one")
		tasks     = flags.String("tasks-url", "", "base `URL` of tasks, where it is another one")
		messaging = flags.String("messaging-url", "", "base `URL` of messaging, where it is another one")
		timeout   = flags.Duration("timeout", 2*time.Minute, "how long the whole story may take")
	)
	if err := flags.Parse(in.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var urls client.URLs
	for _, u := range []struct {
		flag  string
		value string
		into  *string
	}{
		{"--auth-url", *auth, &urls.Auth},
		{"--tasks-url", *tasks, &urls.Tasks},
		{"--messaging-url", *messaging, &urls.Messaging},
	} {
		*u.into = u.value
		if u.value == "" {
			*u.into, u.flag = *base, "--url"
		}
		parsed, err := url.Parse(*u.into)
		if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
			return fmt.Errorf("%s: need a base URL such as http://127.0.0.1:8080", u.flag)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	return smoke.Run(ctx, urls, in.stdout)
}

package operator

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/marketplane/marketplane/api/contract"
)

// envImage is the one environment variable that the operator reads: in a
// Deployment its value can be derived from the image of the operator's own
// container, wherever that comes from. The flag wins over it.
const envImage = "MARKETPLANE_IMAGE"

// config is what the operator was started with.
type config struct {
	image             string
	previousImage     string
	postgresImage     string
	metricsAddress    string
	probeAddress      string
	profileAddress    string
	leaderElect       bool
	electionID        string
	electionNamespace string
	namespace         string
	watchNamespaces   []string
	logLevel          slog.Level
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	var (
		c          config
		namespaces string
	)
	flags := flag.NewFlagSet(Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.image, "image", getenv(envImage), "image of the services; by default that of "+envImage)
	flags.StringVar(&c.previousImage, "previous-image", "", "image of the services of release "+contract.PreviousRelease+
		"; by default what a Marketplace ran it from before, else that of --image with the tag "+strings.TrimPrefix(contract.PreviousRelease, "v"))
	flags.StringVar(&c.postgresImage, "postgres-image", "postgres:17", "image of embedded databases that name no other")
	flags.StringVar(&c.metricsAddress, "metrics-bind-address", ":8080", "address of the metrics, over plain HTTP; 0 for none")
	flags.StringVar(&c.probeAddress, "health-probe-bind-address", ":8081", "address of the probes")
	flags.StringVar(&c.profileAddress, "pprof-bind-address", "0", "address of Go's profiles; 0 for none")
	flags.BoolVar(&c.leaderElect, "leader-elect", false, "let one of several operators work at a time")
	flags.StringVar(&c.electionID, "leader-election-id", Name, "name of the lease; operators that look after different namespaces need different ones")
	flags.StringVar(&c.electionNamespace, "leader-election-namespace", "", "namespace of the lease; by default the operator's own")
	flags.StringVar(&c.namespace, "namespace", "", "the operator's own namespace, which NetworkPolicies admit to the services' internal port; by default that of its service account, and everyone is admitted where there is none")
	flags.StringVar(&namespaces, "watch-namespaces", "", "comma-separated namespaces to look after; by default all")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if c.logLevel < slog.LevelDebug {
		// From there on the Kubernetes client logs what it reads and writes, Secrets
		// included.
		return c, fmt.Errorf("--log-level=%s is more than debug, and would log Secrets", c.logLevel)
	}
	if c.image == "" {
		return c, fmt.Errorf("the image of the services is not known: set --image or %s", envImage)
	}
	for ns := range strings.SplitSeq(namespaces, ",") {
		if ns = strings.TrimSpace(ns); ns != "" {
			c.watchNamespaces = append(c.watchNamespaces, ns)
		}
	}
	return c, nil
}

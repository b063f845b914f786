package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/marketplane/marketplane/hack/bench/internal/process"
)

// operator is what is measured, running.
type operator struct {
	*process.Process
	metrics string
	profile string
}

func startOperator(program, kubeconfig, dir string) (*operator, error) {
	metrics, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	profile, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := process.Start(process.Options{
		Name: "operator", Program: program, Logs: dir,
		Arguments: []string{
			"--image=marketplane:bench",
			"--leader-elect", "--leader-election-namespace=" + operatorNamespace,
			"--metrics-bind-address=" + metrics,
			"--pprof-bind-address=" + profile,
			"--health-probe-bind-address=127.0.0.1:0",
		},
		Environment: []string{"KUBECONFIG=" + kubeconfig},
	})
	if err != nil {
		return nil, err
	}
	return &operator{Process: p, metrics: metrics, profile: profile}, nil
}

// looks returns how many reconciliations have ended.
func (o *operator) looks(ctx context.Context) (int, error) {
	body, err := process.Fetch(ctx, "http://"+o.metrics+"/metrics")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, `controller_runtime_reconcile_total{controller="marketplace"`) {
			continue
		}
		fields := strings.Fields(line)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return int(total), nil
}

// keepProfile writes a profile of the given name into dir.
func (o *operator) keepProfile(ctx context.Context, dir, name, path string) error {
	body, err := process.Fetch(ctx, "http://"+o.profile+"/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".pprof"), body, 0o600)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/marketplane/marketplane/hack/cluster/internal/cluster"
	"github.com/marketplane/marketplane/hack/cluster/internal/host"
	"github.com/marketplane/marketplane/hack/cluster/internal/kubeapi"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/provisioner"
)

func (t tool) cluster() cluster.Cluster {
	return cluster.Cluster{Dir: t.dir, Builder: t.builder, Progress: t.progress}
}

// plain makes a command that takes neither flags nor arguments.
func plain(name string, do func(context.Context, tool) error) func(context.Context, tool, []string) error {
	return func(ctx context.Context, t tool, args []string) error {
		f := newFlags(name, t.stderr)
		if err := f.Parse(args); err != nil {
			return err
		}
		if err := noArguments(f); err != nil {
			return err
		}
		return do(ctx, t)
	}
}

func deps(ctx context.Context, t tool) error { return host.InstallMissing(ctx, t.progress) }

// up installs what is missing first, where it can; where it can't, the
// cluster's own check says all that is missing.
func up(ctx context.Context, t tool) error {
	if host.CanInstall() {
		if err := deps(ctx, t); err != nil {
			return err
		}
	}
	return t.cluster().Up(ctx)
}

func down(ctx context.Context, t tool) error { return t.cluster().Down(ctx) }

func status(ctx context.Context, t tool) error { return t.cluster().Status(ctx, t.stdout) }

func kubeconfig(_ context.Context, t tool) error {
	path, err := t.cluster().Kubeconfig()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.stdout, path)
	return err
}

func loadImage(ctx context.Context, t tool, args []string) error {
	f := newFlags("load-image", t.stderr)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("load-image: name at least one archive")
	}
	return t.cluster().Load(ctx, f.Args())
}

// provision is the tool in its role as a component of the cluster.
func provision(ctx context.Context, t tool, args []string) error {
	f := newFlags("provisioner", t.stderr)
	dir := f.String("dir", "", "the cluster's run `folder`")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("provisioner: --dir is missing")
	}
	d := layout.Dir(*dir)
	api, err := kubeapi.New(layout.APIServerURL(), d.PKI())
	if err != nil {
		return err
	}
	return provisioner.Provisioner{
		API: api, Name: layout.StorageProvisioner, Root: d.Volumes(),
		Log: slog.New(slog.NewTextHandler(t.stderr, nil)),
	}.Run(ctx)
}

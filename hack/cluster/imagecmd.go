package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/debian"
	"github.com/marketplane/marketplane/hack/cluster/internal/image"
)

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string { return strings.Join(*r, " ") }

func (r *repeated) Set(value string) error {
	*r = append(*r, value)
	return nil
}

var _ flag.Value = (*repeated)(nil)

// buildImage makes an image of static programs.
func buildImage(_ context.Context, t tool, args []string) error {
	f := newFlags("image", t.stderr)
	out := f.String("out", "", "the archive to write, a `FILE`")
	tag := f.String("name", "", "the image's `NAME:TAG`")
	user := f.String("user", "65532:65532", "the `UID[:GID]` that the image runs as")
	workdir := f.String("workdir", "/", "the working `folder`")
	var files, entrypoint, cmd, env repeated
	f.Var(&files, "file", "a file to put in, `SRC=DST`; DST is absolute (repeatable)")
	f.Var(&entrypoint, "entrypoint", "the program to run, then its arguments, `ARG` by ARG (repeatable)")
	f.Var(&cmd, "cmd", "default arguments after the entrypoint, `ARG` by ARG (repeatable)")
	f.Var(&env, "env", "an environment variable, `NAME=VALUE` (repeatable)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noArguments(f); err != nil {
		return err
	}
	if *out == "" || *tag == "" || len(files) == 0 {
		return errors.New("image: --out, --name and at least one --file are needed")
	}
	entries := image.BaseEntries()
	for _, file := range files {
		entry, err := image.FileEntry(file)
		if err != nil {
			return fmt.Errorf("image: --file %s: %w", file, err)
		}
		entries = append(entries, entry)
	}
	if err := image.Write(*out, image.Spec{
		Name: *tag, Entries: entries, Entrypoint: entrypoint, Cmd: cmd, Env: env, User: *user, WorkingDir: *workdir,
	}); err != nil {
		return err
	}
	t.progress.Say("wrote %s as %s", *tag, *out)
	return nil
}

// postgresImage makes an image of PostgreSQL out of Debian's packages.
func postgresImage(ctx context.Context, t tool, args []string) error {
	f := newFlags("postgres-image", t.stderr)
	out := f.String("out", "", "the archive to write, a `FILE`")
	tag := f.String("name", "marketplane-postgres:15", "the image's `NAME:TAG`")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noArguments(f); err != nil {
		return err
	}
	if *out == "" {
		return errors.New("postgres-image: --out is needed")
	}
	return debian.PostgresImage(ctx, filepath.Join(t.builder.Cache, "debian"), *out, *tag, t.progress)
}

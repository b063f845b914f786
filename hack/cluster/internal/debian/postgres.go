package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/image"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

const (
	// recipe changes whenever the image is made in another way.
	recipe = "1"
	// suite is the Debian release of the image, whatever the machine's is.
	suite = "bookworm"
	// postgresVersion is the major version that the release has.
	postgresVersion = "15"
	// postgresID is the user and group that the usual PostgreSQL image runs
	// as; manifests are written for it.
	postgresID = 999
)

// PostgresImage writes an image of PostgreSQL to out. It is made once and
// kept in cache.
func PostgresImage(ctx context.Context, cache, out, tag string, progress *run.Progress) error {
	dir := filepath.Join(cache, "postgres-"+postgresVersion+"-"+suite+"-"+recipe)
	lock, err := run.TakeLock(ctx, dir+".lock", func() { progress.Say("waiting for another build of the PostgreSQL image") })
	if err != nil {
		return err
	}
	defer lock.Release()
	root := filepath.Join(dir, "root")
	if _, err := os.Stat(root); err != nil {
		if err := progress.Step(ctx, "debootstrap PostgreSQL "+postgresVersion, nil, func(ctx context.Context) error {
			return bootstrap(ctx, dir, root)
		}); err != nil {
			return err
		}
	}
	cached := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(tag)+".tar")
	if _, err := os.Stat(cached); err != nil {
		if err := progress.Step(ctx, "write the PostgreSQL image", nil, func(context.Context) error {
			return writePostgres(root, cached, tag)
		}); err != nil {
			return err
		}
	}
	if err := copyFile(cached, out); err != nil {
		return fmt.Errorf("write PostgreSQL image: %w", err)
	}
	progress.Say("wrote %s as %s", tag, out)
	return nil
}

// bootstrap makes the root file system beside its place and moves it there
// when it is whole.
func bootstrap(ctx context.Context, dir, root string) error {
	if os.Geteuid() != 0 {
		return errors.New("debootstrap needs root")
	}
	mirror, err := findMirror("/etc/apt", suite)
	if err != nil {
		return err
	}
	building := filepath.Join(dir, "building")
	if err := os.RemoveAll(building); err != nil {
		return fmt.Errorf("remove an unfinished root file system: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // packages are no secret
		return fmt.Errorf("make cache folder: %w", err)
	}
	if err := run.Quiet(ctx, "env", "DEBIAN_FRONTEND=noninteractive", "debootstrap", "--variant=minbase",
		"--include=postgresql-"+postgresVersion, suite, building, mirror); err != nil {
		return err
	}
	return os.Rename(building, root)
}

func writePostgres(root, out, tag string) error {
	entries, err := image.Tree(root, keep)
	if err != nil {
		return err
	}
	uid, gid, err := renumber(root, entries)
	if err != nil {
		return err
	}
	for i := range entries {
		if entries[i].UID == uid {
			entries[i].UID = postgresID
		}
		if entries[i].GID == gid {
			entries[i].GID = postgresID
		}
	}
	entries = withFolders(entries)
	bin := "/usr/lib/postgresql/" + postgresVersion + "/bin"
	return image.Write(out, image.Spec{
		Name: tag, Entries: entries, User: fmt.Sprintf("%d:%d", postgresID, postgresID),
		Cmd: []string{bin + "/postgres", "--version"},
		Env: []string{"PATH=" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"},
	})
}

// left lists what the image leaves out: the compiler for just-in-time queries
// (LLVM is most of the size), documentation, translations, package lists, and
// the cluster that the packages made.
var left = []string{
	"/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/i18n",
	"/usr/share/lintian", "/usr/share/bug", "/usr/share/perl", "/usr/share/perl5",
	"/usr/lib/postgresql/" + postgresVersion + "/lib/bitcode",
	"/usr/lib/postgresql/" + postgresVersion + "/lib/llvmjit.so",
	"/usr/lib/postgresql/" + postgresVersion + "/lib/llvmjit_types.bc",
	"/var/cache/apt", "/var/lib/apt/lists", "/var/log", "/var/cache/debconf",
	"/var/lib/postgresql/" + postgresVersion, "/etc/postgresql", "/var/cache/man",
	"/dev", "/proc", "/sys", "/boot", "/debootstrap",
}

// keep says whether a path of the root file system goes into the image.
func keep(path string) bool {
	if slices.Contains(left, path) {
		return false
	}
	base := filepath.Base(path)
	return !strings.HasPrefix(base, "libLLVM") && !strings.HasPrefix(base, "libz3.so")
}

// renumber gives the packages' user and group `postgres` the usual id, in the
// entries of passwd and group, and returns the ids that they had.
func renumber(root string, entries []image.Entry) (uid, gid int, err error) {
	for _, f := range []struct {
		path   string
		fields []int // which of the colon-separated fields hold ids to change
		id     *int
	}{
		{"/etc/passwd", []int{2, 3}, &uid},
		{"/etc/group", []int{2}, &gid},
	} {
		i := slices.IndexFunc(entries, func(e image.Entry) bool { return e.Path == f.path })
		if i < 0 {
			return 0, 0, fmt.Errorf("the root file system %s has no %s", root, f.path)
		}
		data, err := os.ReadFile(entries[i].Source)
		if err != nil {
			return 0, 0, fmt.Errorf("renumber postgres: %w", err)
		}
		changed, was, err := renumberLine(string(data), "postgres", f.fields)
		if err != nil {
			return 0, 0, fmt.Errorf("renumber postgres in %s: %w", f.path, err)
		}
		*f.id = was
		entries[i].Data, entries[i].Source = []byte(changed), ""
	}
	return uid, gid, nil
}

// renumberLine changes the ids of one line of a passwd or group file.
func renumberLine(text, who string, fields []int) (changed string, was int, err error) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		parts := strings.Split(line, ":")
		if parts[0] != who {
			continue
		}
		for _, f := range fields {
			if f >= len(parts) {
				return "", 0, fmt.Errorf("line %q is too short", line)
			}
			if f == fields[0] {
				if was, err = strconv.Atoi(parts[f]); err != nil {
					return "", 0, fmt.Errorf("id in line %q: %w", line, err)
				}
			}
			parts[f] = strconv.Itoa(postgresID)
		}
		lines[i] = strings.Join(parts, ":")
		return strings.Join(lines, "\n"), was, nil
	}
	return "", 0, fmt.Errorf("no line for %s", who)
}

// withFolders adds the folders that a running server needs and that were left
// out or belong to another.
func withFolders(entries []image.Entry) []image.Entry {
	for _, want := range []image.Entry{
		{Path: "/var/lib/postgresql", Mode: fs.ModeDir | 0o755, UID: postgresID, GID: postgresID},
		{Path: "/var/lib/postgresql/data", Mode: fs.ModeDir | 0o700, UID: postgresID, GID: postgresID},
		{Path: "/var/run", Mode: fs.ModeSymlink | 0o777, Link: "/run"},
		{Path: "/run/postgresql", Mode: fs.ModeDir | fs.ModeSticky | 0o777, UID: postgresID, GID: postgresID},
		{Path: "/var/log", Mode: fs.ModeDir | 0o755},
		{Path: "/dev", Mode: fs.ModeDir | 0o755},
		{Path: "/proc", Mode: fs.ModeDir | 0o555},
		{Path: "/sys", Mode: fs.ModeDir | 0o555},
	} {
		entries = slices.DeleteFunc(entries, func(e image.Entry) bool { return e.Path == want.Path })
		entries = append(entries, want)
	}
	return entries
}

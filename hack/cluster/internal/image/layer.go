package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Entry is one file, folder or link of a layer.
type Entry struct {
	// Path is absolute and clean.
	Path string
	// Mode has the permission bits, the sticky bit, and the type bits of a
	// folder or symbolic link.
	Mode fs.FileMode
	// UID and GID own the entry.
	UID, GID int
	// Link is the target of a symbolic link.
	Link string
	// Data is the content of a file, unless Source says where it is.
	Data []byte
	// Source is a file of this machine whose content it is.
	Source string
}

// epoch is the time of every entry: a layer depends on nothing but content.
var epoch = time.Unix(0, 0)

// WriteLayer writes entries as a tar stream, in the order of their paths,
// with the folders that they need.
func WriteLayer(w io.Writer, entries []Entry) error {
	sorted, err := withFolders(entries)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, e := range sorted {
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("layer entry %s: %w", e.Path, err)
		}
	}
	return tw.Close()
}

func withFolders(entries []Entry) ([]Entry, error) {
	all := map[string]Entry{}
	for _, e := range entries {
		if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || e.Path == "/" {
			return nil, fmt.Errorf("layer entry %q: path must be absolute and clean", e.Path)
		}
		if _, twice := all[e.Path]; twice {
			return nil, fmt.Errorf("layer entry %q: given twice", e.Path)
		}
		all[e.Path] = e
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = Entry{Path: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	sorted := make([]Entry, 0, len(all))
	for _, e := range all {
		sorted = append(sorted, e)
	}
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return sorted, nil
}

func writeEntry(tw *tar.Writer, e Entry) error {
	h := header(e)
	switch {
	case e.Mode.IsDir(), e.Mode&fs.ModeSymlink != 0:
		return tw.WriteHeader(h)
	case e.Source == "":
		h.Size = int64(len(e.Data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(e.Data)
		return err
	}
	file, err := os.Open(e.Source)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New(e.Source + " is not a regular file")
	}
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, file)
	return err
}

func header(e Entry) *tar.Header {
	h := &tar.Header{
		Name: strings.TrimPrefix(e.Path, "/"), Mode: int64(e.Mode.Perm()),
		Uid: e.UID, Gid: e.GID, ModTime: epoch, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
	}
	if e.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.Mode.IsDir():
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	}
	return h
}

// Tree returns a root file system's entries. keep, given a path inside of it,
// says what goes in; a folder left out leaves out all below it. Owners are
// kept, setuid and setgid bits are not, and neither are devices and sockets.
func Tree(root string, keep func(path string) bool) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside := strings.TrimPrefix(name, root)
		if inside == "" {
			return nil
		}
		if !keep(inside) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("no owner of %s", name)
		}
		e := Entry{
			Path: inside, UID: int(stat.Uid), GID: int(stat.Gid),
			Mode: info.Mode() & (fs.ModePerm | fs.ModeSticky | fs.ModeDir | fs.ModeSymlink),
		}
		switch {
		case info.Mode().IsRegular():
			e.Source = name
		case info.Mode()&fs.ModeSymlink != 0:
			if e.Link, err = os.Readlink(name); err != nil {
				return err
			}
		case !info.IsDir():
			return nil
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read root file system: %w", err)
	}
	return entries, nil
}

// FileEntry reads SRC=DST: a file of this machine and where it goes. Whoever
// may execute it here may execute it there.
func FileEntry(spec string) (Entry, error) {
	source, target, ok := strings.Cut(spec, "=")
	if !ok || source == "" || target == "" {
		return Entry{}, errors.New("want SRC=DST")
	}
	info, err := os.Stat(source)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: target, Mode: 0o644, Source: source}
	if info.Mode().Perm()&0o111 != 0 {
		e.Mode = 0o755
	}
	return e, nil
}

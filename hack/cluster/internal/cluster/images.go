package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/binaries"
	"github.com/marketplane/marketplane/hack/cluster/internal/component"
	"github.com/marketplane/marketplane/hack/cluster/internal/image"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// systemImages are the images that every node needs.
type systemImages struct {
	// archives are the files to import.
	archives []string
	// addons are the images' names in the manifests.
	addons component.AddonImages
}

// systemImages makes the archives, once for each version.
func (c Cluster) systemImages(ctx context.Context) (systemImages, error) {
	pause, err := c.pauseImage(ctx)
	if err != nil {
		return systemImages{}, err
	}
	images := systemImages{archives: []string{pause}}
	for _, addon := range []struct {
		module binaries.Module
		name   *string
	}{
		{binaries.CoreDNS(), &images.addons.CoreDNS},
		{binaries.MetricsServer(), &images.addons.MetricsServer},
		{binaries.Ingress(), &images.addons.Ingress},
	} {
		archive, name, err := c.addonImage(ctx, addon.module)
		if err != nil {
			return systemImages{}, err
		}
		images.archives = append(images.archives, archive)
		*addon.name = name
	}
	return images, nil
}

// addonImage makes the image of a module's one program.
func (c Cluster) addonImage(ctx context.Context, m binaries.Module) (archive, name string, err error) {
	dir, err := c.Builder.Build(ctx, m)
	if err != nil {
		return "", "", err
	}
	// The folder's name is version and digest: a pod runs anew when either
	// changes, as its image's name does.
	program, tag := m.Programs[0].Name, strings.TrimPrefix(filepath.Base(dir), m.Folder+"-")
	archive, name = filepath.Join(dir, tag+".tar"), "marketplane-cluster/"+program+":"+tag
	if _, err := os.Stat(archive); err == nil {
		return archive, name, nil
	}
	return archive, name, image.Write(archive, image.Spec{
		Name: name, Entrypoint: []string{"/" + program}, User: "65532:65532",
		Entries: append(image.BaseEntries(), image.Entry{Path: "/" + program, Mode: 0o755, Source: filepath.Join(dir, program)}),
	})
}

// pauseImage makes the image of pods' sandboxes.
func (c Cluster) pauseImage(ctx context.Context) (string, error) {
	_, tag, _ := strings.Cut(layout.PauseImage, ":")
	dir := filepath.Join(c.Builder.Cache, "pause-"+tag)
	archive := filepath.Join(dir, "image.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	return archive, c.Progress.Step(ctx, "build the pause image", nil, func(ctx context.Context) error {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs in a cache are for every user to run
			return fmt.Errorf("make cache folder: %w", err)
		}
		program := filepath.Join(dir, "pause")
		if err := binaries.GoTool(ctx, c.Builder.Source, nil, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./pause"); err != nil {
			return err
		}
		return image.Write(archive, image.Spec{
			Name: layout.PauseImage, Entrypoint: []string{"/pause"}, User: "65535:65535",
			Entries: []image.Entry{{Path: "/pause", Mode: 0o755, Source: program}},
		})
	})
}

// Load imports image archives into every node.
func (c Cluster) Load(ctx context.Context, archives []string) error {
	lock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := c.Kubeconfig(); err != nil {
		return err
	}
	return c.load(ctx, archives)
}

func (c Cluster) load(ctx context.Context, archives []string) error {
	for _, archive := range archives {
		for _, n := range layout.Nodes() {
			present, err := c.present(ctx, n, archive)
			if err != nil {
				return err
			}
			if present {
				continue
			}
			step := fmt.Sprintf("import %s into %s", filepath.Base(filepath.Dir(archive))+"/"+filepath.Base(archive), n.Name)
			if err := c.Progress.Step(ctx, step, nil, func(ctx context.Context) error {
				return run.Quiet(ctx, "ctr", "--address", c.Dir.Node(n.Name).Socket(), "--namespace", "k8s.io",
					"images", "import", "--snapshotter", "overlayfs", archive)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// present says whether a node has every image of an archive, by name and
// digest. An archive that does not say its digests is never present.
func (c Cluster) present(ctx context.Context, n layout.Node, archive string) (bool, error) {
	file, err := os.Open(archive)
	if err != nil {
		return false, fmt.Errorf("load image: %w", err)
	}
	defer func() { _ = file.Close() }()
	want, err := image.Identify(file)
	if err != nil {
		return false, fmt.Errorf("load image %s: %w", archive, err)
	}
	if len(want) == 0 {
		return false, nil
	}
	have, err := run.Output(ctx, "ctr", "--address", c.Dir.Node(n.Name).Socket(), "--namespace", "k8s.io", "images", "list")
	if err != nil {
		return false, err
	}
	listed := parseImageList(have)
	for _, w := range want {
		if listed[w.Name] != w.Digest {
			return false, nil
		}
	}
	return true, nil
}

// parseImageList reads `ctr images list`: name, media type and digest come
// first on a line.
func parseImageList(list string) map[string]string {
	images := map[string]string{}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) >= 3 && strings.HasPrefix(fields[2], "sha256:") {
			images[fields[0]] = fields[2]
		}
	}
	return images
}

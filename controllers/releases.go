package controllers

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// release is a version of the services and the image that it is run from.
type release struct {
	version, image string
}

// releases are those of one Marketplace.
type releases struct {
	// running is what its services are; zero where there are none yet.
	running release
	// wanted is what they shall be.
	wanted release
}

// decideRelease says which release the services are of, and which they shall
// be: the one that the spec names, the operator's own where it shall follow
// the operator, else the one that runs. A newer operator so changes nothing by
// itself.
func (r *Reconciler) decideRelease(m *v1alpha1.Marketplace, seen observation) (releases, error) {
	found := releases{running: r.runningRelease(m, seen)}
	running := found.running
	switch {
	case m.Spec.Version != "":
		found.wanted.version = m.Spec.Version
	case running.version == "" || m.Spec.UpgradePolicy == v1alpha1.UpgradeAutomatic:
		found.wanted.version = r.Config.Release
	default:
		found.wanted.version = running.version
	}
	if err := r.checkRelease(m, found); err != nil {
		return found, err
	}
	switch {
	case found.wanted.version == r.Config.Release:
		// Also where it runs already: another build of it is rolled out.
		found.wanted.image = r.Config.Image
	case found.wanted.version == running.version && running.image != "":
		found.wanted.image = running.image
	default:
		found.wanted.image = r.previousImage(m)
	}
	return found, nil
}

// previousImage is what the release before is run from, where it does not run.
func (r *Reconciler) previousImage(m *v1alpha1.Marketplace) string {
	version, ran := r.Config.PreviousRelease, m.Status.Previous
	switch {
	case r.Config.PreviousImage != "":
		return r.Config.PreviousImage
	case ran != nil && ran.Version == version:
		return ran.Image
	default:
		return retag(r.Config.Image, strings.TrimPrefix(version, "v"))
	}
}

// retag is an image of the same repository with another tag.
func retag(image, tag string) string {
	repository, _, _ := strings.Cut(image, "@")
	// A colon before the last slash is that of a registry's port.
	if colon := strings.LastIndex(repository, ":"); colon > strings.LastIndex(repository, "/") {
		repository = repository[:colon]
	}
	return repository + ":" + tag
}

// runningRelease is what the status says, or, where that is not to be relied
// on, what is seen of the services. Release v0.1.0 wrote no image, and whatever
// it was built as for a version.
func (r *Reconciler) runningRelease(m *v1alpha1.Marketplace, seen observation) release {
	told := release{m.Status.Version, m.Status.Image}
	if told.image != "" && r.knows(told.version) {
		return told
	}
	names := desired.NamesOf(m)
	// A change of release begins with the bus.
	if bus := seen.statefulSet(names, contract.ComponentBus); bus != nil {
		return releaseOf(bus.Labels, bus.Spec.Template)
	}
	var live release
	for _, service := range contract.Services() {
		d := seen.deployment(names, service)
		if d == nil {
			continue
		}
		one := releaseOf(d.Labels, d.Spec.Template)
		if template := templateOf(m, service); template != nil && template.Image != "" {
			one.image = "" // It is not the release's.
		}
		if live.image == "" {
			live = one
		}
	}
	if live.version == "" && told.image != "" {
		return told
	}
	return live
}

func releaseOf(labels map[string]string, template corev1.PodTemplateSpec) release {
	found := release{version: desired.ReleaseOf(labels)}
	if len(template.Spec.Containers) > 0 {
		found.image = template.Spec.Containers[0].Image
	}
	return found
}

// templateOf is what the spec asks of a service's pods, nil for nothing.
func templateOf(m *v1alpha1.Marketplace, service string) *v1alpha1.PodTemplate {
	switch service {
	case contract.ComponentAuth:
		return m.Spec.Auth.Template
	case contract.ComponentTasks:
		return m.Spec.Tasks.Template
	default:
		return m.Spec.Messaging.Template
	}
}

// knows says whether the operator renders the release.
func (r *Reconciler) knows(release string) bool {
	return release != "" && (release == r.Config.Release || release == r.Config.PreviousRelease)
}

// checkRelease refuses what the operator cannot render, and a way that skips a
// release: the schema of each is safe beside the services of the one before
// alone.
func (r *Reconciler) checkRelease(m *v1alpha1.Marketplace, found releases) error {
	wanted, running := found.wanted.version, found.running.version
	own, previous := r.Config.Release, r.Config.PreviousRelease
	known := own
	if previous != "" {
		known += " and " + previous
	}
	if !r.knows(wanted) {
		if m.Spec.Version != "" {
			return stop(v1alpha1.ReasonVersionUnsupported,
				"spec.version: this operator knows %s, not %s: set spec.version to one that it knows, or install the operator of %s",
				known, wanted, wanted)
		}
		return stop(v1alpha1.ReasonVersionUnsupported,
			"status.version: the services are of %s, and this operator knows %s: set spec.version to %s, or install the operator of %s",
			wanted, known, r.nearest(wanted), wanted)
	}
	if field := desired.Lacks(wanted, m.Spec); field != "" {
		return stop(v1alpha1.ReasonVersionUnsupported,
			"%s: release %s does not have it: remove it, or set spec.version to %s", field, wanted, own)
	}
	if running == "" || r.knows(running) || wanted == r.nearest(running) {
		return nil
	}
	return stop(v1alpha1.ReasonVersionUnsupported,
		"status.version: the services are of %s, and to go to %s at once would skip a release: set spec.version to %s first, without upgradePolicy: Automatic",
		running, wanted, r.nearest(running))
}

// nearest is the known release that is nearest to one that is not known.
func (r *Reconciler) nearest(unknown string) string {
	from, err := version.ParseSemantic(unknown)
	own, ownErr := version.ParseSemantic(r.Config.Release)
	if err != nil || ownErr != nil || r.Config.PreviousRelease == "" || own.LessThan(from) {
		return r.Config.Release
	}
	return r.Config.PreviousRelease
}

// publishKeys keeps the public keys current while nothing else can be
// rendered: keys go on being rotated.
func (r *Reconciler) publishKeys(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation) error {
	if m.Spec.Paused || seen.keysUnsettled || seen.keys(desired.NamesOf(m)) == nil {
		return nil
	}
	keys := desired.PublicKeys(m, r.inputs(m, seen, release{}, size{}))
	return r.applyObject(ctx, m, mem, seen, keys, size{})
}

// pinReleases writes down what runs: from the first look on, and anew once all
// services are what they shall be. p is nil where nothing could be decided.
func (r *Reconciler) pinReleases(m *v1alpha1.Marketplace, seen observation, p *plan) {
	if p == nil {
		return
	}
	pinned := p.releases.running
	if pinned.version == "" || p.releases.wanted == pinned || p.rolledOut(seen) {
		pinned = p.releases.wanted
	}
	if was := p.releases.running; was.version != "" && was.version != pinned.version {
		m.Status.Previous = &v1alpha1.ReleaseStatus{Version: was.version, Image: was.image}
	}
	m.Status.Version, m.Status.Image = pinned.version, pinned.image
	if m.Spec.Database.External == nil {
		m.Status.DatabaseImage = r.postgresImage(m, seen)
		if image := m.Spec.Database.EmbeddedOrDefault().Image; image != "" {
			m.Status.DatabaseImage = image
		}
	}
}

// rolledOut says whether every service is of the release, and of the image,
// that it shall be.
func (p plan) rolledOut(seen observation) bool {
	if p.migrationState != migrationSucceeded {
		return false
	}
	for _, object := range p.workloads {
		wanted, ok := object.(*appsv1ac.DeploymentApplyConfiguration)
		if !ok {
			continue
		}
		live, ok := seen.own(kindDeployment, deref(wanted.GetName())).(*appsv1.Deployment)
		if !ok {
			return false
		}
		is := releaseOf(live.Labels, live.Spec.Template)
		if is.version != p.releases.wanted.version || is.image != deref(wanted.Spec.Template.Spec.Containers[0].Image) {
			return false
		}
	}
	return true
}

// postgresImage is what an embedded database runs whose spec names no image:
// what it ran before, since a volume can be read only by the major version that
// made it, or for a new one the operator's default.
func (r *Reconciler) postgresImage(m *v1alpha1.Marketplace, seen observation) string {
	if m.Status.DatabaseImage != "" {
		return m.Status.DatabaseImage
	}
	s := seen.statefulSet(desired.NamesOf(m), contract.ComponentDatabase)
	if s != nil && len(s.Spec.Template.Spec.Containers) > 0 {
		return s.Spec.Template.Spec.Containers[0].Image
	}
	return r.Config.PostgresImage
}

// tellRelease says in an Event that the services have come to another release,
// or image, than before.
func (r *Reconciler) tellRelease(before, m *v1alpha1.Marketplace) {
	was, is := release{before.Status.Version, before.Status.Image}, release{m.Status.Version, m.Status.Image}
	if was == is || is.version == "" {
		return
	}
	text := fmt.Sprintf("pinned to release %s, image %s", is.version, is.image)
	if was.version != "" {
		text = fmt.Sprintf("the services are of release %s, image %s; before, the status said %s", is.version, is.image, was.version)
	}
	r.event(m, m, corev1.EventTypeNormal, "Release", "%s", text)
}

package desired

import (
	_ "embed" // The scripts that the database's pod runs.
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// The embedded database's user in PostgreSQL's images, superuser, database,
// and folders. The scripts know the same folders.
const (
	databaseUser      = 999
	DatabaseSuperuser = "postgres"
	databaseName      = "marketplane"
	databaseVolume    = "/var/lib/marketplane"
	databaseSocket    = "/run/marketplane"
	databaseScripts   = "/etc/marketplane/database-scripts"
)

// databaseGrace is what a fast shutdown with its checkpoint may take.
const databaseGrace = 60 * time.Second

var (
	//go:embed database/start.sh
	scriptStart string
	//go:embed database/binaries.sh
	scriptBinaries string
	//go:embed database/ready.sh
	scriptReady string
	//go:embed database/stop.sh
	scriptStop string
	//go:embed database/pg_hba.conf
	hostAccess string
)

// database is one PostgreSQL on one volume.
func (r renderer) database() []Object {
	spec := r.m.Spec.Database.EmbeddedOrDefault()
	scripts := map[string]string{
		"start.sh":    scriptStart,
		"binaries.sh": scriptBinaries,
		"ready.sh":    scriptReady,
		"stop.sh":     scriptStop,
		"pg_hba.conf": hostAccess,
	}
	labels := Labels(r.m, contract.ComponentDatabase)
	service := corev1ac.Service(r.names.Component(contract.ComponentDatabase), r.m.Namespace).
		WithLabels(labels).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(corev1ac.ServiceSpec().
			WithSelector(SelectorLabels(r.m, contract.ComponentDatabase)).
			WithPorts(servicePort("postgresql", contract.DatabasePort, "postgresql")))
	return append(r.databasePolicy(),
		corev1ac.ConfigMap(r.names.DatabaseScripts(), r.m.Namespace).
			WithLabels(labels).
			WithOwnerReferences(Owner(r.m)).
			WithData(scripts),
		r.databaseClaim(spec.Storage),
		service,
		r.databaseServer(spec))
}

// databaseClaim is the volume. It belongs to the Marketplace only where it is
// to be deleted with it.
func (r renderer) databaseClaim(storage v1alpha1.StorageSpec) Object {
	size, class := storage.Size, storage.ClassName
	if existing := r.in.Volume; existing != nil {
		if existing.Size.Cmp(size) > 0 {
			size = existing.Size
		}
		if existing.ClassName != nil {
			class = *existing.ClassName
		}
	}
	labels := Labels(r.m, contract.ComponentDatabase)
	labels[contract.LabelInstallation] = r.in.Installation
	claimSpec := corev1ac.PersistentVolumeClaimSpec().
		WithAccessModes(corev1.ReadWriteOnce).
		WithResources(corev1ac.VolumeResourceRequirements().
			WithRequests(corev1.ResourceList{corev1.ResourceStorage: size}))
	if class != "" {
		claimSpec.WithStorageClassName(class)
	}
	claim := corev1ac.PersistentVolumeClaim(r.names.Component(contract.ComponentDatabase), r.m.Namespace).
		WithLabels(labels).
		WithSpec(claimSpec)
	if storage.DeletionPolicy == v1alpha1.DeletionDelete {
		claim.WithOwnerReferences(Owner(r.m))
	}
	return claim
}

func (r renderer) databaseServer(spec v1alpha1.EmbeddedDatabase) Object {
	const component = contract.ComponentDatabase
	image := spec.Image
	if image == "" {
		image = r.in.PostgresImage
	}
	ready := func() *corev1ac.ProbeApplyConfiguration {
		return corev1ac.Probe().
			WithExec(corev1ac.ExecAction().WithCommand("/bin/sh", databaseScripts+"/ready.sh")).
			WithTimeoutSeconds(5)
	}
	container := corev1ac.Container().
		WithName(component).
		WithImage(image).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithCommand("/bin/sh", databaseScripts+"/start.sh").
		WithPorts(port("postgresql", contract.DatabasePort)).
		WithResources(resources(amounts{cpu: "100m", memory: "256Mi", memoryLimit: "1Gi"}, spec.Resources)).
		WithSecurityContext(restrictedContainer()).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		// Replaying a long write-ahead log after a crash takes minutes.
		WithStartupProbe(ready().WithPeriodSeconds(2).WithFailureThreshold(450)).
		WithReadinessProbe(ready().WithPeriodSeconds(5).WithFailureThreshold(3)).
		WithLifecycle(corev1ac.Lifecycle().WithPreStop(corev1ac.LifecycleHandler().
			WithExec(corev1ac.ExecAction().WithCommand("/bin/sh", databaseScripts+"/stop.sh")))).
		WithVolumeMounts(
			mount("data", databaseVolume),
			mount("socket", databaseSocket),
			mount("tmp", "/tmp"),
			mountReadOnly("scripts", databaseScripts),
			mountReadOnly("password", contract.MountDatabase),
		)
	podSpec := pod(databaseUser, databaseGrace, container).
		WithVolumes(
			corev1ac.Volume().WithName("data").WithPersistentVolumeClaim(
				corev1ac.PersistentVolumeClaimVolumeSource().WithClaimName(r.names.Component(component))),
			scratchVolume("socket", "1Mi"),
			scratchVolume("tmp", "64Mi"),
			configMapVolume("scripts", r.names.DatabaseScripts()),
			secretVolume("password", r.names.DatabaseAdmin()),
		)
	config := checksum(r.fingerprints(r.names.DatabaseAdmin()),
		scriptStart, scriptBinaries, scriptReady, scriptStop, hostAccess)
	return appsv1ac.StatefulSet(r.names.Component(component), r.m.Namespace).
		WithLabels(Labels(r.m, component)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(appsv1ac.StatefulSetSpec().
			WithReplicas(1).
			WithServiceName(r.names.Component(component)).
			WithPodManagementPolicy(appsv1.ParallelPodManagement).
			WithSelector(r.selector(component)).
			WithTemplate(r.template(component, config, podSpec)))
}

package desired

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	batchv1ac "k8s.io/client-go/applyconfigurations/batch/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// migrateGrace is what a migration may take to finish its statement when it is
// told to stop.
const migrateGrace = 30 * time.Second

// migrationRetries is how often a failed migration is tried again, with the
// Job's own growing pauses, before it needs someone.
const migrationRetries = 6

// MigrationName names the first Job of the migration that these inputs need; the
// names of further rounds begin with it.
func MigrationName(m *v1alpha1.Marketplace, in Inputs) string {
	in.MigrationRound = 0
	return renderer{m: m, in: in, names: NamesOf(m)}.migrationName()
}

// migrationName names the Job whose success these inputs need. A Job cannot
// change, so whatever would change it is in its name.
func (r renderer) migrationName() string {
	secrets := []string{r.names.DatabaseAdmin()}
	for _, service := range contract.Services() {
		secrets = append(secrets, r.names.DatabaseRole(service))
	}
	name := r.names.Migration(checksum(r.in.Image, r.in.Installation, r.fingerprints(secrets...))[:10])
	if r.in.MigrationRound > 0 {
		name += "-" + strconv.Itoa(r.in.MigrationRound)
	}
	return name
}

// migration is the Job that makes roles and schemas and brings them up to this
// release. It stays as the record that this was done.
func (r renderer) migration() Object {
	const component = contract.ComponentMigrate
	roles := corev1ac.ProjectedVolumeSource().WithDefaultMode(secretMode)
	for _, service := range contract.Services() {
		roles.WithSources(corev1ac.VolumeProjection().WithSecret(corev1ac.SecretProjection().
			WithName(r.names.DatabaseRole(service)).
			WithItems(corev1ac.KeyToPath().
				WithKey(contract.FilePassword).
				WithPath(service + "/" + contract.FilePassword))))
	}
	res := resources(amounts{cpu: "50m", memory: "64Mi", memoryLimit: "256Mi"}, nil)
	container := r.container(component, res).
		WithEnv(
			env(contract.EnvDatabaseURLFile, contract.MountDatabase+"/"+contract.FileDatabaseURL),
			env(contract.EnvRolesDir, contract.MountRoles),
		).
		WithVolumeMounts(
			mountReadOnly("database", contract.MountDatabase),
			mountReadOnly("roles", contract.MountRoles),
		)
	podSpec := pod(serviceUser, migrateGrace, container).
		WithRestartPolicy(corev1.RestartPolicyNever).
		WithVolumes(
			secretVolume("database", r.names.DatabaseAdmin()),
			corev1ac.Volume().WithName("roles").WithProjected(roles),
		)
	return batchv1ac.Job(r.migrationName(), r.m.Namespace).
		WithLabels(r.workloadLabels(component)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(batchv1ac.JobSpec().
			WithBackoffLimit(migrationRetries).
			WithTemplate(corev1ac.PodTemplateSpec().
				WithLabels(Labels(r.m, component)).
				WithSpec(podSpec)))
}

package controllers

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// plan is what shall be done.
type plan struct {
	// apply are the objects to apply, in order.
	apply []desired.Object
	// held exist and stay as they are: it is not their turn to change.
	held []desired.Object
	// releases are what runs and what shall run.
	releases releases
	// workloads are the Deployments that make up the release that shall run.
	workloads []desired.Object
	// size of the messaging tier.
	size size
	// migration is the name of the Job that this release needs.
	migration string
	// migrationState is how far it has come.
	migrationState migrationState
	// attempt says more of it.
	attempt migration
}

// migrationState is how far a migration Job has come.
type migrationState int

const (
	migrationAbsent migrationState = iota
	migrationRunning
	migrationSucceeded
	migrationFailed
)

func stateOfMigration(job *batchv1.Job) migrationState {
	if job == nil {
		return migrationAbsent
	}
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return migrationSucceeded
		case batchv1.JobFailed:
			return migrationFailed
		default: // It is on its way to one of them.
		}
	}
	return migrationRunning
}

// decide says what shall be done about what was seen. It needs every Secret.
//
// The services change only after the migration that their release needs; what
// runs until then goes on running. The migration waits for the database, so
// that its few retries are not used up on a server that still starts.
func (r *Reconciler) decide(m *v1alpha1.Marketplace, seen observation, messaging size) (plan, error) {
	names := desired.NamesOf(m)
	releases, err := r.decideRelease(m, seen)
	if err != nil {
		return plan{}, err
	}
	p := plan{releases: releases, size: messaging}
	in := r.inputs(m, seen, p.releases.wanted, p.size)
	usable := databaseState(m, seen).ok
	var volume time.Time
	if claim := seen.volume(names); claim != nil && m.Spec.Database.External == nil {
		volume = claim.CreationTimestamp.Time
	}
	p.attempt = decideMigration(seen, desired.MigrationName(m, in), r.Now(), volume, usable)
	in.MigrationRound, p.migrationState = p.attempt.round, p.attempt.state
	objects := desired.Build(m, in)
	p.migration = *objects.Migration.GetName()

	p.workloads = objects.Workloads
	for _, object := range objects.Foundation {
		if seen.keysUnsettled && keyOf(object) == (objectKey{kindConfigMap, names.JWKS()}) {
			p.held = append(p.held, object)
			continue
		}
		// The bus runs the release's program, so it is rolled with the services.
		if p.migrationState != migrationSucceeded && keyOf(object) == (objectKey{kindStatefulSet, names.Bus()}) &&
			seen.statefulSet(names, contract.ComponentBus) != nil {
			p.held = append(p.held, object)
			continue
		}
		p.apply = append(p.apply, object)
	}
	// A Job cannot change: once made, it is never applied again.
	if p.migrationState == migrationAbsent && usable {
		p.apply = append(p.apply, objects.Migration)
	} else {
		p.held = append(p.held, objects.Migration)
	}
	for _, object := range objects.Access {
		// Whether there shall be one is not known: what there is stays.
		if _, known := seen.monitored(); !known && keyOf(object) == (objectKey{kindConfigMap, names.Dashboard()}) {
			p.held = append(p.held, object)
			continue
		}
		p.apply = append(p.apply, object)
	}
	if p.migrationState == migrationSucceeded {
		p.apply = append(p.apply, objects.Workloads...)
	} else {
		p.held = append(p.held, objects.Workloads...)
	}
	if !p.left(m, seen) {
		p.held = append(p.held, objects.Leaving...)
	}
	p.apply = slices.DeleteFunc(p.apply, seen.lacksAPI)
	return p, nil
}

// left says whether no pod of the services uses the embedded database, or bus,
// that the spec has replaced: all of them are as they shall be, and those from
// before have ended.
func (p plan) left(m *v1alpha1.Marketplace, seen observation) bool {
	if p.migrationState != migrationSucceeded || seen.database != nil && seen.database.problem != nil {
		return false
	}
	for _, service := range contract.Services() {
		for i := range seen.pods[service] {
			if seen.pods[service][i].DeletionTimestamp != nil {
				return false
			}
		}
		if !serviceState(m, seen, &p, service).ok {
			return false
		}
	}
	for _, object := range p.workloads {
		wanted, ok := object.(*appsv1ac.DeploymentApplyConfiguration)
		if !ok {
			continue
		}
		live, ok := seen.own(kindDeployment, deref(wanted.GetName())).(*appsv1.Deployment)
		if !ok || live.Spec.Template.Annotations[desired.AnnotationConfig] != wanted.Spec.Template.Annotations[desired.AnnotationConfig] {
			return false
		}
	}
	return true
}

// inputs are what the objects depend on beside the Marketplace.
func (r *Reconciler) inputs(m *v1alpha1.Marketplace, seen observation, wanted release, s size) desired.Inputs {
	names := desired.NamesOf(m)
	monitored, known := seen.monitored()
	in := desired.Inputs{
		Installation:      seen.installation,
		Release:           wanted.version,
		Image:             wanted.image,
		PostgresImage:     r.postgresImage(m, seen),
		Fingerprints:      map[string]string{},
		MessagingReplicas: s.replicas,
		Autoscaled:        autoscaledServices(m, seen, s),
		OperatorNamespace: r.Config.Namespace,
		Monitored:         monitored || !known,
	}
	for name, facts := range seen.secrets {
		in.Fingerprints[name] = facts.fingerprint
	}
	// Those of the URL that the services have, which stays while the user's
	// Secret is gone.
	in.ExternalDatabasePorts = seen.secrets[names.DatabaseAdmin()].ports
	in.PortsInUse = portsInUse(names, seen)
	if keys := seen.keys(names); keys != nil {
		in.JWKS = keys.jwks
	}
	if claim := seen.volume(names); claim != nil {
		in.Volume = &desired.Volume{
			Size:      claim.Spec.Resources.Requests[corev1.ResourceStorage],
			ClassName: claim.Spec.StorageClassName,
		}
	}
	return in
}

// portsInUse are the ports of external servers that pods of the services reach,
// those that end and those that a Deployment still makes included.
func portsInUse(names desired.Names, seen observation) []int32 {
	var ports []int32
	for _, service := range contract.Services() {
		if d := seen.deployment(names, service); d != nil {
			ports = append(ports, desired.ExternalPorts(d.Spec.Template.Annotations)...)
		}
		for i := range seen.pods[service] {
			pod := &seen.pods[service][i]
			if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				ports = append(ports, desired.ExternalPorts(pod.Annotations)...)
			}
		}
	}
	return ports
}

// replicasOf returns how many pods of a service are wanted where no autoscaler
// of its Deployment decides.
func replicasOf(m *v1alpha1.Marketplace, component string, messaging size) int32 {
	switch component {
	case contract.ComponentAuth:
		return m.Spec.Auth.ReplicasOrDefault()
	case contract.ComponentTasks:
		return m.Spec.Tasks.ReplicasOrDefault()
	default:
		return messaging.replicas
	}
}

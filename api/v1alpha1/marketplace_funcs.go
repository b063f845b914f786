package v1alpha1

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Defaults of fields that the API server fills in; needed here for objects
// that were stored before a field existed, and for optional sections.
const (
	defaultServiceReplicas   = 2
	defaultStorageSize       = "5Gi"
	defaultMinReplicas       = 1
	defaultMinReplicasByCPU  = 2
	defaultTargetCPU         = 70
	defaultTargetConnections = 5000
	defaultStabilization     = 300
	defaultFloorSeconds      = 10
	defaultWindowSeconds     = 120
	defaultKeyPeriod         = 720 * time.Hour
	defaultKeyOverlap        = time.Hour
)

// EmbeddedOrDefault returns what is asked of the embedded database.
func (d DatabaseSpec) EmbeddedOrDefault() EmbeddedDatabase {
	var e EmbeddedDatabase
	if d.Embedded != nil {
		e = *d.Embedded
	}
	if e.Storage.Size.IsZero() {
		e.Storage.Size = resource.MustParse(defaultStorageSize)
	}
	if e.Storage.DeletionPolicy == "" {
		e.Storage.DeletionPolicy = DeletionRetain
	}
	return e
}

// EmbeddedOrDefault returns what is asked of the embedded bus.
func (b BusSpec) EmbeddedOrDefault() EmbeddedBus {
	var e EmbeddedBus
	if b.Embedded != nil {
		e = *b.Embedded
	}
	if e.Replicas == 0 {
		e.Replicas = 1
	}
	return e
}

// ReplicasOrDefault returns how many auth pods are wanted.
func (a AuthSpec) ReplicasOrDefault() int32 { return orDefault(a.Replicas, defaultServiceReplicas) }

// OrDefault returns how often keys are rotated, and for how long old ones stay.
func (k KeyRotationSpec) OrDefault() KeyRotationSpec {
	if k.Period.Duration == 0 {
		k.Period.Duration = defaultKeyPeriod
	}
	if k.Overlap.Duration == 0 {
		k.Overlap.Duration = defaultKeyOverlap
	}
	return k
}

// ReplicasOrDefault returns how many tasks pods are wanted.
func (t TasksSpec) ReplicasOrDefault() int32 { return orDefault(t.Replicas, defaultServiceReplicas) }

// ReplicasOrDefault returns how many messaging pods are wanted where
// autoscaling does not decide.
func (m MessagingSpec) ReplicasOrDefault() int32 {
	return orDefault(m.Replicas, defaultServiceReplicas)
}

// MinReplicasOrDefault returns the least number of pods.
func (a AutoscalingSpec) MinReplicasOrDefault() int32 {
	return orDefault(a.MinReplicas, defaultMinReplicas)
}

// MinReplicasOrDefault returns the least number of pods.
func (a CPUAutoscalingSpec) MinReplicasOrDefault() int32 {
	return orDefault(a.MinReplicas, defaultMinReplicasByCPU)
}

// TargetCPUOrDefault returns the CPU that the pods should use on average, in
// percent of what they request.
func (a CPUAutoscalingSpec) TargetCPUOrDefault() int32 {
	return orDefault(a.TargetCPUUtilizationPercentage, defaultTargetCPU)
}

// TargetConnectionsOrDefault returns the connections that one pod should hold.
func (a AutoscalingSpec) TargetConnectionsOrDefault() int32 {
	return orDefault(a.TargetConnections, defaultTargetConnections)
}

// ScaleDownStabilization returns how long fewer pods must have sufficed.
func (a AutoscalingSpec) ScaleDownStabilization() time.Duration {
	return time.Duration(orDefault(a.ScaleDownStabilizationSeconds, defaultStabilization)) * time.Second
}

// Floor returns how long a pod that must go goes on accepting.
func (d DrainSpec) Floor() time.Duration {
	return time.Duration(orDefault(d.FloorSeconds, defaultFloorSeconds)) * time.Second
}

// Window returns the time over which connections are asked to move.
func (d DrainSpec) Window() time.Duration {
	return time.Duration(orDefault(d.WindowSeconds, defaultWindowSeconds)) * time.Second
}

func orDefault(p *int32, value int32) int32 {
	if p == nil {
		return value
	}
	return *p
}

// NamedSecrets returns the names of the Secrets, in the Marketplace's
// namespace, that its spec names, each once. The operator reads them, and looks
// again when one of them changes.
func (m *Marketplace) NamedSecrets() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if d := m.Spec.Database.External; d != nil {
		add(d.URLSecretRef.Name)
		if d.TLS != nil && d.TLS.CASecretRef != nil {
			add(d.TLS.CASecretRef.Name)
		}
	}
	if b := m.Spec.Bus.External; b != nil {
		if b.CredentialsSecretRef != nil {
			add(b.CredentialsSecretRef.Name)
		}
		if b.TLS != nil && b.TLS.CASecretRef != nil {
			add(b.TLS.CASecretRef.Name)
		}
		if b.TLS != nil && b.TLS.ClientCertificateSecretRef != nil {
			add(b.TLS.ClientCertificateSecretRef.Name)
		}
	}
	if n := m.Spec.Messaging.Notifications; n != nil {
		add(n.SecretRef.Name)
	}
	if e := m.Spec.Exposure; e != nil && e.Ingress != nil && e.Ingress.TLS != nil {
		add(e.Ingress.TLS.SecretName)
	}
	return names
}

// KeyOr returns the key, or what it is by default.
func (r SecretKeyReference) KeyOr(byDefault string) string {
	if r.Key == "" {
		return byDefault
	}
	return r.Key
}

package operator

// What the operator may do in its own namespace beside what controllers/rbac.go
// says: lead, and tell of it. config/rbac/leader_election_role.yaml is generated
// from this. Only the operator's own lease may be read and changed; to make one
// can't be bound to a name.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=marketplane-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=marketplane-system,resources=leases,resourceNames=marketplane-operator,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=marketplane-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=events.k8s.io,namespace=marketplane-system,resources=events,verbs=create;patch

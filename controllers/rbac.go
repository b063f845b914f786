package controllers

// What the operator may do; config/rbac/role.yaml is generated from this.
//
// Secrets are read one by one and watched by metadata alone, so that memory
// holds of them what external servers are looked at with, and no more. Neither a Secret nor a volume can be
// deleted with these rights. Of Secrets, only those that the operator made are
// ever patched, each against the version that was read: to rotate the signing
// keys, and to follow an external database. (A rule could tell them from others
// by their names alone, and the names are people's.)
//
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces/status,verbs=patch
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=configmaps;services,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=httproutes,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=monitoring.coreos.com,resources=podmonitors;prometheusrules,verbs=get;list;watch;create;patch;delete

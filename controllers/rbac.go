package controllers

// What the operator may do; config/rbac/role.yaml is generated from this.
//
// Secrets are read one by one and watched by metadata alone, so that no copy
// of anyone's Secret stays in memory.
//
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=marketplane.dev,resources=marketplaces/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps;secrets;services;persistentvolumeclaims,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;update;patch;delete

package provisioner

// The few fields of the API's objects that matter here.

type list[T any] struct {
	Items []T `json:"items"`
}

type metadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	DeletionTimestamp string            `json:"deletionTimestamp,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
}

type claim struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		VolumeName       string   `json:"volumeName"`
		VolumeMode       string   `json:"volumeMode"`
		StorageClassName string   `json:"storageClassName"`
		AccessModes      []string `json:"accessModes"`
		Resources        struct {
			Requests map[string]string `json:"requests"`
		} `json:"resources"`
	} `json:"spec"`
}

// volumeName is the same at every attempt, so that a claim never gets two.
func (c claim) volumeName() string { return "pvc-" + c.Metadata.UID }

type storageClass struct {
	ReclaimPolicy string   `json:"reclaimPolicy"`
	MountOptions  []string `json:"mountOptions"`
}

type volume struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   metadata     `json:"metadata"`
	Spec       volumeSpec   `json:"spec"`
	Status     volumeStatus `json:"status,omitzero"`
}

type volumeStatus struct {
	Phase string `json:"phase,omitempty"`
}

type volumeSpec struct {
	Capacity         map[string]string `json:"capacity"`
	AccessModes      []string          `json:"accessModes"`
	ReclaimPolicy    string            `json:"persistentVolumeReclaimPolicy"`
	StorageClassName string            `json:"storageClassName"`
	VolumeMode       string            `json:"volumeMode"`
	ClaimRef         *claimRef         `json:"claimRef,omitempty"`
	Local            *localSource      `json:"local,omitempty"`
	NodeAffinity     *nodeAffinity     `json:"nodeAffinity,omitempty"`
}

type claimRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type localSource struct {
	Path string `json:"path"`
}

type nodeAffinity struct {
	Required nodeSelector `json:"required"`
}

type nodeSelector struct {
	Terms []nodeSelectorTerm `json:"nodeSelectorTerms"`
}

type nodeSelectorTerm struct {
	Expressions []nodeSelectorExpression `json:"matchExpressions"`
}

type nodeSelectorExpression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values"`
}

// newVolume is the volume at path for a claim. The size is told, not enforced.
func newVolume(provisioner string, c claim, class storageClass, node, path string) volume {
	policy := class.ReclaimPolicy
	if policy == "" {
		policy = "Delete"
	}
	return volume{
		APIVersion: "v1", Kind: "PersistentVolume",
		Metadata: metadata{Name: c.volumeName(), Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: volumeSpec{
			Capacity:         map[string]string{"storage": c.Spec.Resources.Requests["storage"]},
			AccessModes:      c.Spec.AccessModes,
			ReclaimPolicy:    policy,
			StorageClassName: c.Spec.StorageClassName,
			VolumeMode:       "Filesystem",
			ClaimRef:         &claimRef{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Metadata.Namespace, Name: c.Metadata.Name, UID: c.Metadata.UID},
			Local:            &localSource{Path: path},
			NodeAffinity: &nodeAffinity{Required: nodeSelector{Terms: []nodeSelectorTerm{{
				Expressions: []nodeSelectorExpression{{Key: "kubernetes.io/hostname", Operator: "In", Values: []string{node}}},
			}}}},
		},
	}
}

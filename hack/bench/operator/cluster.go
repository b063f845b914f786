package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// The operator signs in as the ServiceAccount that it is installed with, so
// that the API server's fairness puts it where it puts such accounts.
const (
	operatorNamespace = "marketplane-system"
	operatorUser      = "system:serviceaccount:" + operatorNamespace + ":marketplane-operator"
)

// auditPolicy has every request of the operator written down, and no other.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  users: ["` + operatorUser + `"]
- level: None
`

// cluster is a kube-apiserver with its etcd, the operator's CRD and its rights.
type cluster struct {
	env    *envtest.Environment
	config *rest.Config
	client client.Client
	// audit is the file in which every request of the operator stands.
	audit string
	// kubeconfig is the operator's.
	kubeconfig string
}

func startCluster(ctx context.Context, dir string) (*cluster, error) {
	policy, audit := filepath.Join(dir, "audit-policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	env := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	env.ControlPlane.GetAPIServer().Configure().
		// Room for many Services: what envtest gives is 254.
		Set("service-cluster-ip-range", "10.0.0.0/16").
		Set("audit-policy-file", policy).
		Set("audit-log-path", audit).
		Set("audit-log-maxsize", "2000")
	kubernetes, err := env.Start()
	if err != nil {
		return nil, fmt.Errorf("start kube-apiserver and etcd (KUBEBUILDER_ASSETS must name their folder): %w", err)
	}
	k := &cluster{env: env, config: kubernetes, audit: audit, kubeconfig: filepath.Join(dir, "kubeconfig")}
	if err := k.prepare(ctx); err != nil {
		k.stop()
		return nil, err
	}
	return k, nil
}

func (k *cluster) stop() { _ = k.env.Stop() }

func (k *cluster) prepare(ctx context.Context) error {
	k.config.QPS = -1
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	var err error
	if k.client, err = client.New(k.config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}
	if err := k.client.Create(ctx, ns); err != nil {
		return err
	}
	if err := k.bind(ctx); err != nil {
		return fmt.Errorf("give the operator its rights: %w", err)
	}
	user, err := k.env.AddUser(envtest.User{
		Name:   operatorUser,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace},
	}, k.config)
	if err != nil {
		return err
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		return err
	}
	return os.WriteFile(k.kubeconfig, kubeconfig, 0o600)
}

// bind gives the operator the roles that it is installed with, and no other.
func (k *cluster) bind(ctx context.Context) error {
	subject := rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: operatorUser}
	role, election := &rbacv1.ClusterRole{}, &rbacv1.Role{}
	for file, into := range map[string]any{"role.yaml": role, "leader_election_role.yaml": election} {
		document, err := os.ReadFile(filepath.Join("config", "rbac", file)) //nolint:gosec // The names stand above.
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(document, into); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	for _, object := range []client.Object{
		role, election,
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects:   []rbacv1.Subject{subject},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: election.Name, Namespace: election.Namespace},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: election.Name},
			Subjects:   []rbacv1.Subject{subject},
		},
	} {
		if err := k.client.Create(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

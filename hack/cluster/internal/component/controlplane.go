// Package component says how each component of the cluster is started: its
// command line and its configuration file. Everything here is a pure function
// of where things lie; nothing is started.
package component

import (
	"path/filepath"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/network"
)

// Paths says where the programs and the run folder are.
type Paths struct {
	// Dir is the run folder.
	Dir layout.Dir
	// Kubernetes is the folder of the Kubernetes programs and etcd.
	Kubernetes string
}

// Component is a process to start.
type Component struct {
	// Name names the record and the log.
	Name string
	// Args is the whole command line.
	Args []string
}

func (p Paths) pki(name string) string { return filepath.Join(p.Dir.PKI(), name) }

func (p Paths) on(n layout.Node, name, program string, flags ...string) Component {
	args := append([]string{filepath.Join(p.Kubernetes, program)}, flags...)
	return Component{Name: name, Args: network.Enter(n, args...)}
}

// etcdURL is inside the first node's network, which only pods that ask for
// the node's network share.
const etcdURL = "http://127.0.0.1:2379"

// Etcd is the API server's store. It does not wait for the disk: a cluster
// that is thrown away has nothing to lose, and tests run twice as fast.
func (p Paths) Etcd() Component {
	return p.on(layout.ControlPlane(), "etcd", "etcd",
		"--name=local", "--data-dir="+p.Dir.Etcd(), "--unsafe-no-fsync=true", "--log-level=warn",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=local=http://127.0.0.1:2380",
		"--auto-compaction-mode=periodic", "--auto-compaction-retention=10m",
	)
}

// APIServer is kube-apiserver. It advertises the first node's address,
// because it refuses a loopback one.
func (p Paths) APIServer() Component {
	return p.on(layout.ControlPlane(), "kube-apiserver", "kube-apiserver",
		"--advertise-address="+layout.ControlPlane().Address, "--secure-port="+layout.APIPort,
		"--service-cluster-ip-range="+layout.ServiceCIDR,
		"--etcd-servers="+etcdURL,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--anonymous-auth=true",
		"--client-ca-file="+p.pki("ca.crt"),
		"--tls-cert-file="+p.pki("kube-apiserver.crt"), "--tls-private-key-file="+p.pki("kube-apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority="+p.pki("ca.crt"),
		"--kubelet-client-certificate="+p.pki("kube-apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+p.pki("kube-apiserver-kubelet-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc."+layout.Domain,
		"--service-account-key-file="+p.pki("service-account.pub"),
		"--service-account-signing-key-file="+p.pki("service-account.key"),
		// The aggregation layer: API services such as metrics.k8s.io.
		"--enable-aggregator-routing=true",
		"--requestheader-client-ca-file="+p.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+p.pki("front-proxy-client.crt"), "--proxy-client-key-file="+p.pki("front-proxy-client.key"),
		"--profiling=false", "--v=1",
	)
}

// ControllerManager is kube-controller-manager. The nodes' pod ranges are
// written into the Node objects by the tool, so it allocates none.
func (p Paths) ControllerManager() Component {
	kubeconfig := p.pki("kube-controller-manager.kubeconfig")
	return p.on(layout.ControlPlane(), "kube-controller-manager", "kube-controller-manager",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--use-service-account-credentials=true",
		"--cluster-name="+layout.Context, "--allocate-node-cidrs=false", "--cluster-cidr="+layout.PodCIDR,
		"--service-cluster-ip-range="+layout.ServiceCIDR,
		"--cluster-signing-cert-file="+p.pki("ca.crt"), "--cluster-signing-key-file="+p.pki("ca.key"), "--root-ca-file="+p.pki("ca.crt"),
		"--service-account-private-key-file="+p.pki("service-account.key"),
		// A test of autoscaling should not wait for production's periods.
		"--horizontal-pod-autoscaler-sync-period=5s", "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
		"--horizontal-pod-autoscaler-cpu-initialization-period=10s",
		"--profiling=false", "--v=1",
	)
}

// Scheduler is kube-scheduler.
func (p Paths) Scheduler() Component {
	kubeconfig := p.pki("kube-scheduler.kubeconfig")
	return p.on(layout.ControlPlane(), "kube-scheduler", "kube-scheduler",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false", "--v=1",
	)
}

// Provisioner is this tool itself, in its role as the volumes' provisioner.
func (p Paths) Provisioner() Component {
	return Component{Name: "provisioner", Args: []string{filepath.Join(p.Dir.Bin(), "cluster"), "provisioner", "--dir", string(p.Dir)}}
}

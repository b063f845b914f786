// Package layout names everything that the local cluster puts on a machine:
// folders, addresses, namespaces, control groups. It does nothing with them,
// so that every other package agrees on them without knowing each other.
package layout

import (
	"net/netip"
	"os"
	"path/filepath"
)

// Addresses of the cluster. They are fixed: one local cluster runs on a
// machine, and tests and documents may rely on them.
const (
	// Bridge is the bridge on the host that joins the nodes.
	Bridge = "mkp0"
	// BridgeAddress is the host's own address on Bridge, with its prefix.
	BridgeAddress = "10.89.0.1/24"
	// Gateway is BridgeAddress without its prefix: the nodes' default route.
	Gateway = "10.89.0.1"
	// ServiceCIDR holds the ClusterIPs.
	ServiceCIDR = "10.96.0.0/16"
	// ServiceAddress is the ClusterIP of the `kubernetes` Service.
	ServiceAddress = "10.96.0.1"
	// DNSAddress is the ClusterIP of CoreDNS.
	DNSAddress = "10.96.0.10"
	// IngressAddress is the ClusterIP of the ingress proxy.
	IngressAddress = "10.96.0.80"
	// PodCIDR holds every node's pod range.
	PodCIDR = "10.244.0.0/16"
	// Domain is the cluster's DNS domain.
	Domain = "cluster.local"
	// APIPort is the TCP port of kube-apiserver on the first node.
	APIPort = "6443"
)

// Names that users of the cluster see.
const (
	// Context is the name of the kubeconfig's context, cluster and user.
	Context = "marketplane-local"
	// PauseImage is the image of every pod's sandbox.
	PauseImage = "marketplane-cluster/pause:1"
	// StorageProvisioner is the provisioner of the default StorageClass.
	StorageProvisioner = "marketplane.dev/local-volumes"
	// IngressClass is the class of the Ingresses that the ingress proxy serves.
	IngressClass = "local"
	// DirVariable is the environment variable that overrides DefaultDir.
	DirVariable = "MARKETPLANE_CLUSTER_DIR"
	// DefaultDir is the run folder.
	DefaultDir = "/var/lib/marketplane-cluster"
)

// Node is one node of the cluster.
type Node struct {
	// Name is the name of the Node object.
	Name string
	// Namespace is the network namespace that is the node's own machine, as
	// far as the network goes. The control group has the same name.
	Namespace string
	// Address is the node's InternalIP.
	Address string
	// PodCIDR is the range of the node's pods.
	PodCIDR string
	// Zone is the value of topology.kubernetes.io/zone.
	Zone string
	// HostLink is the host's end of the node's veth pair, at most 15 bytes.
	HostLink string
	// MAC is the fixed hardware address of the node's end.
	MAC string
}

// Nodes returns the nodes; the control plane runs in the first.
func Nodes() []Node {
	return []Node{
		{Name: "node-1", Namespace: "mkp-node-1", Address: "10.89.0.11", PodCIDR: "10.244.0.0/24", Zone: "a", HostLink: "mkp-veth-1", MAC: "02:89:00:00:00:11"},
		{Name: "node-2", Namespace: "mkp-node-2", Address: "10.89.0.12", PodCIDR: "10.244.1.0/24", Zone: "b", HostLink: "mkp-veth-2", MAC: "02:89:00:00:00:12"},
	}
}

// ControlPlane returns the node whose namespace holds the control plane.
func ControlPlane() Node { return Nodes()[0] }

// APIServerURL is where kube-apiserver answers, from the host and from pods.
func APIServerURL() string { return "https://" + ControlPlane().Address + ":" + APIPort }

// ClusterRanges returns the address ranges that must not be in use on the
// host before the cluster starts.
func ClusterRanges() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.89.0.0/24"),
		netip.MustParsePrefix(ServiceCIDR),
		netip.MustParsePrefix(PodCIDR),
	}
}

// Dir is the run folder of a cluster: all that it writes lies under it.
type Dir string

// DirFrom returns the run folder that the environment names, or DefaultDir.
func DirFrom(getenv func(string) string) Dir {
	if dir := getenv(DirVariable); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return Dir(abs)
		}
	}
	return DefaultDir
}

func (d Dir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Lock is the file that up, down and load-image lock. It outlives `down`.
func (d Dir) Lock() string { return d.join("lock") }

// Logs is the folder of the components' logs. It outlives `down`.
func (d Dir) Logs() string { return d.join("logs") }

// Host is the file that says what the host was like before the cluster.
func (d Dir) Host() string { return d.join("host.json") }

// State is the folder of everything that `down` removes.
func (d Dir) State() string { return d.join("state") }

// Ready is the file that `up` writes last: without it the state is half made.
func (d Dir) Ready() string { return d.join("state", "ready.json") }

// PIDs is the folder of the process records.
func (d Dir) PIDs() string { return d.join("state", "pids") }

// PKI is the folder of certificates and keys.
func (d Dir) PKI() string { return d.join("state", "pki") }

// Kubeconfig is the administrator's kubeconfig.
func (d Dir) Kubeconfig() string { return d.join("state", "admin.kubeconfig") }

// Config is the folder of the rendered component configuration.
func (d Dir) Config() string { return d.join("state", "config") }

// Etcd is etcd's data folder.
func (d Dir) Etcd() string { return d.join("state", "etcd") }

// Bin holds the copy of this tool that runs as a component.
func (d Dir) Bin() string { return d.join("state", "bin") }

// Volumes holds the local volumes, one folder a node.
func (d Dir) Volumes() string { return d.join("state", "volumes") }

// Node is the folder of one node.
func (d Dir) Node(name string) NodeDir { return NodeDir(d.join("state", name)) }

// NodeDir is the folder of one node.
type NodeDir string

func (d NodeDir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Kubelet is the kubelet's root folder.
func (d NodeDir) Kubelet() string { return d.join("kubelet") }

// PodLogs is where containers' logs lie.
func (d NodeDir) PodLogs() string { return d.join("pod-logs") }

// VolumePlugins is the kubelet's (empty) flexvolume folder.
func (d NodeDir) VolumePlugins() string { return d.join("volume-plugins") }

// ContainerdRoot is containerd's persistent folder.
func (d NodeDir) ContainerdRoot() string { return d.join("containerd", "root") }

// ContainerdState is containerd's folder of running tasks.
func (d NodeDir) ContainerdState() string { return d.join("containerd", "state") }

// ContainerdOpt is containerd's folder for optional plugins.
func (d NodeDir) ContainerdOpt() string { return d.join("containerd", "opt") }

// RuncState is where runc keeps the state of containers.
func (d NodeDir) RuncState() string { return d.join("containerd", "runc") }

// Socket is containerd's socket.
func (d NodeDir) Socket() string { return d.join("containerd", "containerd.sock") }

// CNIConfig is the folder of the CNI configuration.
func (d NodeDir) CNIConfig() string { return d.join("cni", "net.d") }

// CNIState is where host-local remembers the addresses it gave away.
func (d NodeDir) CNIState() string { return d.join("cni", "networks") }

// All lists the folders that must exist before a node starts.
func (d NodeDir) All() []string {
	return []string{
		d.Kubelet(), d.PodLogs(), d.VolumePlugins(), d.ContainerdRoot(),
		d.ContainerdState(), d.ContainerdOpt(), d.RuncState(), d.CNIConfig(), d.CNIState(),
	}
}

// Cache returns the folder outside the repository that holds what is built
// once and kept between clusters.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "marketplane"), nil
}

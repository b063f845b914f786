package component

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/marketplane/marketplane/hack/cluster/internal/host"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/network"
)

type object map[string]any

// Containerd is a node's container runtime. It runs in the node's network,
// where the CNI plugins that it calls make the pods' links.
func (p Paths) Containerd(n layout.Node) Component {
	return Component{
		Name: "containerd-" + n.Name,
		Args: network.Enter(n, "containerd", "--config", p.configFile("containerd-"+n.Name+".toml")),
	}
}

// Kubelet is a node's kubelet.
func (p Paths) Kubelet(n layout.Node) Component {
	return p.on(n, "kubelet-"+n.Name, "kubelet",
		"--config="+p.configFile("kubelet-"+n.Name+".json"),
		"--kubeconfig="+p.pki("kubelet-"+n.Name+".kubeconfig"),
		"--hostname-override="+n.Name, "--node-ip="+n.Address,
		"--root-dir="+p.Dir.Node(n.Name).Kubelet(),
		"--node-labels=topology.kubernetes.io/zone="+n.Zone,
		"--v=1",
	)
}

// KubeProxy is a node's kube-proxy.
func (p Paths) KubeProxy(n layout.Node) Component {
	return p.on(n, "kube-proxy-"+n.Name, "kube-proxy", "--config="+p.configFile("kube-proxy-"+n.Name+".json"))
}

func (p Paths) configFile(name string) string { return filepath.Join(p.Dir.Config(), name) }

// Files returns every configuration file of the nodes, by path.
func (p Paths) Files() (map[string][]byte, error) {
	// The resolver configuration of pods with dnsPolicy Default is empty: no
	// nameserver of the host's can be reached from a pod.
	files := map[string][]byte{p.resolvConf(): {}}
	for _, n := range layout.Nodes() {
		files[p.configFile("containerd-"+n.Name+".toml")] = []byte(p.containerdConfig(n))
		rendered := map[string]object{
			p.configFile("kubelet-" + n.Name + ".json"):                              p.kubeletConfig(n),
			p.configFile("kube-proxy-" + n.Name + ".json"):                           p.kubeProxyConfig(n),
			filepath.Join(p.Dir.Node(n.Name).CNIConfig(), "10-marketplane.conflist"): p.cniConfig(n),
		}
		for path, config := range rendered {
			data, err := json.MarshalIndent(config, "", "  ")
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", filepath.Base(path), err)
			}
			files[path] = data
		}
	}
	return files, nil
}

func (p Paths) resolvConf() string { return p.configFile("resolv.conf") }

func (p Paths) kubeletConfig(n layout.Node) object {
	node := p.Dir.Node(n.Name)
	return object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": n.Address, "healthzBindAddress": "127.0.0.1",
		"containerRuntimeEndpoint": "unix://" + node.Socket(),
		"podLogsDir":               node.PodLogs(), "volumePluginDir": node.VolumePlugins(),
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": p.pki("ca.crt")},
		},
		"authorization":     object{"mode": "Webhook"},
		"tlsCertFile":       p.pki("kubelet-" + n.Name + "-server.crt"),
		"tlsPrivateKeyFile": p.pki("kubelet-" + n.Name + "-server.key"),
		"clusterDomain":     layout.Domain, "clusterDNS": []string{layout.DNSAddress},
		"resolvConf":   p.resolvConf(),
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + n.Namespace,
		"failCgroupV1": false, "failSwapOn": false, "oomScoreAdj": 0,
		// The nodes share one disk with everything else on the machine: they
		// must neither evict pods nor delete images for its sake.
		"evictionHard":                object{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		"serializeImagePulls": false, "registerNode": true,
		"containerLogMaxSize": "10Mi", "containerLogMaxFiles": 3,
	}
}

func (p Paths) kubeProxyConfig(n layout.Node) object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "nftables", "hostnameOverride": n.Name, "bindAddress": n.Address,
		"clientConnection": object{"kubeconfig": p.pki("kube-proxy.kubeconfig")},
		// What comes from outside of the pod range (the host) is masqueraded:
		// its reply must pass the node that translated it.
		"clusterCIDR":        layout.PodCIDR,
		"healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj": 0,
		// Zero leaves the machine's connection tracking limits alone.
		"conntrack": object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	}
}

// cniConfig connects each pod by a link of its own (ptp) rather than a bridge:
// traffic between two pods of a node is then routed, so that Service address
// translation sees the replies without the kernel's br_netfilter module.
func (p Paths) cniConfig(n layout.Node) object {
	return object{
		"cniVersion": "0.4.0", "name": n.Namespace,
		"plugins": []object{
			{
				"type": "ptp", "ipMasq": false,
				"ipam": object{
					"type": "host-local", "dataDir": p.Dir.Node(n.Name).CNIState(),
					"ranges": [][]object{{{"subnet": n.PodCIDR}}},
					"routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}
}

// containerdConfig renders containerd's configuration, in the format that
// 1.5 to 1.7 read.
func (p Paths) containerdConfig(n layout.Node) string {
	node := p.Dir.Node(n.Name)
	return fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = %[3]q

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = %[4]q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[5]q
  # Where the process lacks CAP_SYS_RESOURCE, runc fails to lower a score.
  restrict_oom_score_adj = true
  # Pods' network namespaces lie in the run folder and go with it.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[6]q
    conf_dir = %[7]q

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = %[8]q
`, node.ContainerdRoot(), node.ContainerdState(), node.Socket(), node.ContainerdOpt(), layout.PauseImage, host.CNIPlugins, node.CNIConfig(), node.RuncState())
}

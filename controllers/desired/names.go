package desired

import (
	"fmt"
	"strings"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Names are the names of a Marketplace's objects. The Marketplace's own name
// has at most 40 characters, which leaves room for every suffix, for what
// StatefulSets and Jobs append, and for the 63 characters of a label value.
type Names struct {
	marketplace string
	namespace   string
}

// NamesOf returns the names of m's objects.
func NamesOf(m *v1alpha1.Marketplace) Names {
	return Names{marketplace: m.Name, namespace: m.Namespace}
}

// Component names a component's workload and Service.
func (n Names) Component(component string) string { return n.marketplace + "-" + component }

// Signing names the Secret with the signing keys and the refresh key.
func (n Names) Signing() string { return n.marketplace + "-signing" }

// JWKS names the ConfigMap with the public keys.
func (n Names) JWKS() string { return n.marketplace + "-jwks" }

// DatabaseAdmin names the Secret of the database's superuser.
func (n Names) DatabaseAdmin() string { return n.marketplace + "-database-admin" }

// DatabaseRole names the Secret of a service's database role.
func (n Names) DatabaseRole(service string) string { return n.marketplace + "-database-" + service }

// DatabaseScripts names the ConfigMap with the database's start script.
func (n Names) DatabaseScripts() string { return n.marketplace + "-database-scripts" }

// Bus names the Secret with the bus's token; its workload and Service too.
func (n Names) Bus() string { return n.Component(contract.ComponentBus) }

// BusRoutes names the headless Service in which bus servers find each other.
func (n Names) BusRoutes() string { return n.marketplace + "-bus-routes" }

// Dashboard names the ConfigMap with the Grafana dashboard.
func (n Names) Dashboard() string { return n.Component("dashboard") }

// Public names the Ingress or the HTTPRoute.
func (n Names) Public() string { return n.marketplace + "-public" }

// Migration names the migration Job of the given hash.
func (n Names) Migration(hash string) string {
	return n.marketplace + "-" + contract.ComponentMigrate + "-" + hash
}

// URL returns the in-cluster base URL of a service.
func (n Names) URL(service string) string {
	return "http://" + n.host(n.Component(service))
}

// DatabaseURL returns a URL of the embedded database for the given role.
// Passwords are made of URL-safe characters alone.
func (n Names) DatabaseURL(role, password string) string {
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable",
		role, password, n.host(n.Component(contract.ComponentDatabase)), contract.DatabasePort, databaseName)
}

// busURL returns the client URL of the bus.
func (n Names) busURL() string {
	return fmt.Sprintf("nats://%s:%d", n.host(n.Bus()), contract.BusPort)
}

// busRoutes returns the routes of a bus cluster; empty for a single server.
func (n Names) busRoutes(replicas int32) string {
	if replicas < 2 {
		return ""
	}
	routes := make([]string, 0, replicas)
	for i := range replicas {
		routes = append(routes, fmt.Sprintf("nats-route://%s-%d.%s:%d",
			n.Bus(), i, n.host(n.BusRoutes()), contract.BusRoutePort))
	}
	return strings.Join(routes, ",")
}

func (n Names) host(service string) string { return service + "." + n.namespace + ".svc" }

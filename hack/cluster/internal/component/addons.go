package component

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

//go:embed addons.yaml
var addonsYAML string

// addonsTemplate fails at start-up, in every test, if the file is malformed.
var addonsTemplate = template.Must(template.New("addons").Option("missingkey=error").Parse(addonsYAML))

// AddonImages are the names of the images that the addons run.
type AddonImages struct{ CoreDNS, MetricsServer, Ingress string }

// Addons renders what runs in the cluster itself: CoreDNS, metrics-server, the
// ingress proxy and the default StorageClass.
func Addons(images AddonImages) (string, error) {
	var b strings.Builder
	err := addonsTemplate.Execute(&b, map[string]any{
		"DNSAddress": layout.DNSAddress, "Domain": layout.Domain, "CoreDNS": images.CoreDNS, "MetricsServer": images.MetricsServer,
		"Provisioner": layout.StorageProvisioner,
		"Ingress":     images.Ingress, "IngressAddress": layout.IngressAddress, "IngressClass": layout.IngressClass,
	})
	if err != nil {
		return "", fmt.Errorf("render addons: %w", err)
	}
	return b.String(), nil
}

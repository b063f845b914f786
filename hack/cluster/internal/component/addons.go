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

// Addons renders what runs in the cluster itself: CoreDNS and the default
// StorageClass.
func Addons(coreDNSImage string) (string, error) {
	var b strings.Builder
	err := addonsTemplate.Execute(&b, map[string]any{
		"DNSAddress": layout.DNSAddress, "Domain": layout.Domain, "Image": coreDNSImage,
		"Provisioner": layout.StorageProvisioner,
	})
	if err != nil {
		return "", fmt.Errorf("render addons: %w", err)
	}
	return b.String(), nil
}

package desired

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/marketplane/marketplane/api/contract"
)

// externalPortsAnnotation tells the ports of the external servers; it is empty
// where there are none.
func (r renderer) externalPortsAnnotation() map[string]string {
	ports := slices.Concat(r.externalDatabasePorts(), r.externalBusPorts())
	if len(ports) == 0 {
		return nil
	}
	slices.Sort(ports)
	texts := make([]string, 0, len(ports))
	for _, port := range slices.Compact(ports) {
		texts = append(texts, strconv.Itoa(int(port)))
	}
	return map[string]string{AnnotationExternalPorts: strings.Join(texts, ",")}
}

// ExternalPorts are those that AnnotationExternalPorts tells.
func ExternalPorts(annotations map[string]string) []int32 {
	var ports []int32
	for text := range strings.SplitSeq(annotations[AnnotationExternalPorts], ",") {
		// Pods are anyone's to change: what is no port is passed over.
		if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 {
			ports = append(ports, int32(n))
		}
	}
	return ports
}

// externalDatabasePorts are those of the external database, none where it is
// embedded.
func (r renderer) externalDatabasePorts() []int32 {
	switch {
	case r.m.Spec.Database.External == nil:
		return nil
	case len(r.in.ExternalDatabasePorts) == 0:
		return []int32{contract.DatabasePort}
	default:
		return r.in.ExternalDatabasePorts
	}
}

// externalBusPorts are those of the external bus's URLs, each once; none where it
// is embedded.
func (r renderer) externalBusPorts() []int32 {
	bus := r.m.Spec.Bus.External
	if bus == nil {
		return nil
	}
	var ports []int32
	for _, address := range bus.URLs {
		port := int32(contract.BusPort)
		if u, err := url.Parse(string(address)); err == nil && u.Port() != "" {
			if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
				port = int32(n)
			}
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports
}

// Package metrics tells Prometheus what the operator knows of Marketplaces. It
// reads the operator's cache when it is asked, and so keeps nothing: a
// Marketplace that is gone is gone from the metrics with the next scrape. It
// must not know how anything is decided.
package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// scrapeTimeout bounds how long a scrape waits for the cache, which is there
// at once except while the operator starts.
const scrapeTimeout = 5 * time.Second

// The labels by which a Marketplace is told. They are not called namespace and
// name: Prometheus gives every series the namespace of the pod that it came
// from, which is the operator's.
var marketplaceLabels = []string{"marketplace_namespace", "marketplace"}

var (
	condition = prometheus.NewDesc("marketplane_condition",
		"Conditions of each Marketplace: 1 for the status (True, False, Unknown) that each type has. Reconciling, Stalled and ScalingConflict are there only while they hold.",
		append(slices.Clone(marketplaceLabels), "type", "status"), nil)
	info = prometheus.NewDesc("marketplane_marketplace_info",
		"1 for each Marketplace, with the release that its services run and whether spec.paused is set.",
		append(slices.Clone(marketplaceLabels), "version", "paused"), nil)
	generationLag = prometheus.NewDesc("marketplane_marketplace_generations_behind",
		"How many changes of the spec the status does not speak of yet.",
		marketplaceLabels, nil)
	messagingTarget = prometheus.NewDesc("marketplane_marketplace_messaging_target_replicas",
		"Messaging pods that are wanted: spec.messaging.replicas, or the operator's decision.",
		marketplaceLabels, nil)
	messagingReplicas = prometheus.NewDesc("marketplane_marketplace_messaging_replicas",
		"Messaging pods that exist, terminating ones not counted.",
		marketplaceLabels, nil)
	messagingMax = prometheus.NewDesc("marketplane_marketplace_messaging_max_replicas",
		"spec.messaging.autoscaling.maxReplicas; not there without it.",
		marketplaceLabels, nil)
	messagingConnections = prometheus.NewDesc("marketplane_marketplace_messaging_connections",
		"Connections over all messaging pods as the operator counted them last, by state: live, draining, pending, forwarded (from the pod they came to, beside the one that holds them). A change of a tenth or more shows after 66 seconds at most (6 with spec.messaging.autoscaling), a smaller one 30 seconds after that at most.",
		append(slices.Clone(marketplaceLabels), "state"), nil)
	messagingUnknown = prometheus.NewDesc("marketplane_marketplace_messaging_unknown_pods",
		"Running messaging pods that did not tell their connections, and so keep the tier from shrinking.",
		marketplaceLabels, nil)
	signingKeys = prometheus.NewDesc("marketplane_marketplace_signing_keys",
		"Keys that tokens are verified with.",
		marketplaceLabels, nil)
	keyActivated = prometheus.NewDesc("marketplane_marketplace_signing_key_activated_timestamp_seconds",
		"When the key that signs began to, in Unix time.",
		marketplaceLabels, nil)
	nextRotation = prometheus.NewDesc("marketplane_marketplace_next_key_rotation_timestamp_seconds",
		"When the next signing key will be made, in Unix time.",
		marketplaceLabels, nil)
)

// Marketplaces collects the state of every Marketplace.
type Marketplaces struct {
	reader  client.Reader
	elected <-chan struct{}
	log     logr.Logger
}

var _ prometheus.Collector = (*Marketplaces)(nil)

// NewMarketplaces reads from a cache. Until elected is closed nothing is told,
// so that of several operators only the one that works speaks.
func NewMarketplaces(reader client.Reader, elected <-chan struct{}, log logr.Logger) *Marketplaces {
	return &Marketplaces{reader: reader, elected: elected, log: log}
}

// Describe implements prometheus.Collector.
func (*Marketplaces) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		condition, info, generationLag,
		messagingTarget, messagingReplicas, messagingMax, messagingConnections, messagingUnknown,
		signingKeys, keyActivated, nextRotation,
	} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Marketplaces) Collect(out chan<- prometheus.Metric) {
	select {
	case <-c.elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var list v1alpha1.MarketplaceList
	// What is read is not changed, so it need not be copied.
	if err := c.reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		c.log.V(1).Info("Marketplaces not told in the metrics", "reason", err.Error())
		return
	}
	for i := range list.Items {
		collect(out, &list.Items[i])
	}
}

func collect(out chan<- prometheus.Metric, m *v1alpha1.Marketplace) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value,
			append([]string{m.Namespace, m.Name}, labels...)...)
	}
	s := m.Status
	paused := "false"
	if m.Spec.Paused {
		paused = "true"
	}
	gauge(info, 1, s.Version, paused)
	gauge(generationLag, float64(max(m.Generation-s.ObservedGeneration, 0)))
	// The conditions are a map by type, so no series comes twice.
	for _, c := range s.Conditions {
		gauge(condition, 1, c.Type, string(c.Status))
	}
	collectMessaging(gauge, m)
	if s.Keys == nil {
		return
	}
	gauge(signingKeys, float64(len(s.Keys.Published)))
	if s.Keys.NextRotation != nil {
		gauge(nextRotation, seconds(*s.Keys.NextRotation))
	}
	for _, key := range s.Keys.Schedule {
		if key.ID == s.Keys.Active {
			gauge(keyActivated, seconds(key.ActivatesAt))
			break
		}
	}
}

func collectMessaging(gauge func(*prometheus.Desc, float64, ...string), m *v1alpha1.Marketplace) {
	if a := m.Spec.Messaging.Autoscaling; a != nil {
		gauge(messagingMax, float64(a.MaxReplicas))
	}
	s := m.Status.Messaging
	if s == nil {
		return
	}
	gauge(messagingTarget, float64(s.TargetReplicas))
	gauge(messagingReplicas, float64(s.Replicas))
	if c := s.Connections; c != nil {
		gauge(messagingConnections, float64(c.Live), "live")
		gauge(messagingConnections, float64(c.Draining), "draining")
		gauge(messagingConnections, float64(c.Pending), "pending")
		gauge(messagingConnections, float64(c.Forwarded), "forwarded")
		gauge(messagingUnknown, float64(c.UnknownPods))
	}
}

func seconds(t metav1.Time) float64 { return float64(t.Unix()) }

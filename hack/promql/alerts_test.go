package promql

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// series is one whose value at minute i is from + i*step, up to the minute of
// its last sample; 0 for the whole hour.
type series struct {
	labels     string
	from, step float64
	last       int
}

func line(labels string, from, step float64) series {
	return series{labels: labels, from: from, step: step}
}

// sample is a float at a time.
type sample struct {
	at    int64
	value float64
}

func (s sample) T() int64                    { return s.at }
func (s sample) ST() int64                   { return 0 }
func (s sample) F() float64                  { return s.value }
func (sample) H() *histogram.Histogram       { return nil }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample         { return s }

// memory is a storage of some series over an hour.
type memory struct{ all []storage.Series }

const hour = 60 // minutes

func newMemory(t *testing.T, all []series) *memory {
	t.Helper()
	parse := parser.NewParser(parser.Options{})
	m := &memory{}
	for _, s := range all {
		set, err := parse.ParseMetric(s.labels)
		if err != nil {
			t.Fatalf("%s: %v", s.labels, err)
		}
		var samples []chunks.Sample
		minutes := hour
		if s.last > 0 {
			minutes = s.last + 1
		}
		for i := range minutes {
			samples = append(samples, sample{int64(i) * time.Minute.Milliseconds(), s.from + float64(i)*s.step})
		}
		m.all = append(m.all, storage.NewListSeries(set, samples))
	}
	return m
}

func (m *memory) Querier(int64, int64) (storage.Querier, error) { return m, nil }
func (m *memory) Close() error                                  { return nil }
func (m *memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, s := range m.all {
		matches := true
		for _, matcher := range matchers {
			matches = matches && matcher.Matches(s.Labels().Get(matcher.Name))
		}
		if matches {
			found = append(found, s)
		}
	}
	return &seriesSet{all: found, at: -1}
}

// seriesSet goes through a list.
type seriesSet struct {
	all []storage.Series
	at  int
}

func (s *seriesSet) Next() bool                      { s.at++; return s.at < len(s.all) }
func (s *seriesSet) At() storage.Series              { return s.all[s.at] }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// of are the labels that Prometheus gives what it scrapes from a Marketplace's
// pods, and told those that the operator gives what it tells of it.
func of(marketplace string) string {
	return `namespace="market",marketplace="` + marketplace + `"`
}

func told(marketplace string) string {
	return `namespace="marketplane-system",marketplace_namespace="market",marketplace="` + marketplace + `"`
}

// healthy are the series of a Marketplace with nothing the matter.
func healthy() map[string]series {
	all := map[string]series{}
	add := func(metric, labels, more string, from, step float64) {
		all[metric+"{"+more+"}"] = line(metric+"{"+labels+","+more+"}", from, step)
	}
	for _, component := range []string{"auth", "tasks", "messaging"} {
		pod := `component="` + component + `",pod="` + component + `-0"`
		add("up", of("shop"), pod, 1, 0)
		add("marketplane_session_ends_lag_seconds", of("shop"), pod, 1, 0)
		add("marketplane_bus_connected", of("shop"), pod, 1, 0)
		add("marketplane_database_connections_in_use", of("shop"), pod, 2, 0)
		add("marketplane_database_connections_max", of("shop"), pod, 10, 0)
		add("marketplane_http_request_duration_seconds_count", of("shop"), pod+`,status="200"`, 0, 600)
		add("marketplane_http_request_duration_seconds_count", of("shop"), pod+`,status="503"`, 0, 6)
	}
	const pod = `component="messaging",pod="messaging-0"`
	add("marketplane_messaging_commit_duration_seconds_count", of("shop"), pod+`,result="ok"`, 0, 600)
	add("marketplane_messaging_commit_duration_seconds_count", of("shop"), pod+`,result="unavailable"`, 0, 0)
	add("marketplane_messaging_commit_duration_seconds_bucket", of("shop"), pod+`,result="ok",le="0.5"`, 0, 600)
	add("marketplane_messaging_commit_duration_seconds_bucket", of("shop"), pod+`,result="ok",le="2.5"`, 0, 600)
	add("marketplane_messaging_commit_duration_seconds_bucket", of("shop"), pod+`,result="ok",le="+Inf"`, 0, 600)
	add("marketplane_messaging_connections_refused_total", of("shop"), pod, 7, 0)
	add("marketplane_event_consumer_lag_seconds", of("shop"), pod+`,consumer="messaging.inbox"`, 1, 0)
	// One of several processes does the work; the others need not know.
	add("marketplane_event_consumer_lag_seconds", of("shop"), `component="messaging",pod="messaging-1",consumer="messaging.inbox"`, 0, 60)
	add("marketplane_messaging_notifications_lag_seconds", of("shop"), pod, 16, 0)
	add("marketplane_messaging_notifications_lag_seconds", of("shop"), `component="messaging",pod="messaging-1"`, 0, 60)
	const auth = `component="auth",pod="auth-0"`
	add("marketplane_auth_logins_total", of("shop"), auth+`,result="ok"`, 0, 600)
	add("marketplane_auth_logins_total", of("shop"), auth+`,result="invalid_credentials"`, 0, 90)
	add("marketplane_condition", told("shop"), `type="Ready",status="True"`, 1, 0)
	add("marketplane_marketplace_info", told("shop"), `version="v0.2.0"`, 1, 0)
	add("marketplane_marketplace_messaging_target_replicas", told("shop"), "", 3, 0)
	add("marketplane_marketplace_messaging_max_replicas", told("shop"), "", 9, 0)
	add("marketplane_marketplace_messaging_unknown_pods", told("shop"), "", 0, 0)
	add("marketplane_marketplace_next_key_rotation_timestamp_seconds", told("shop"), "", 1e6, 0)
	return all
}

// rival is another Marketplace of the namespace, of which everything is wrong:
// none of it may fire an alert of the first.
func rival() []series {
	return []series{
		line(`up{`+of("rival")+`,component="auth",pod="rival-0"}`, 0, 0),
		line(`marketplane_session_ends_lag_seconds{`+of("rival")+`,pod="rival-0"}`, 0, 60),
		line(`marketplane_bus_connected{`+of("rival")+`,pod="rival-0"}`, 0, 0),
		line(`marketplane_messaging_connections_refused_total{`+of("rival")+`,pod="rival-0"}`, 0, 60),
		line(`marketplane_http_request_duration_seconds_count{`+of("rival")+`,component="auth",status="503"}`, 0, 600),
		line(`marketplane_event_consumer_lag_seconds{`+of("rival")+`,consumer="messaging.inbox"}`, 0, 60),
		line(`marketplane_auth_logins_total{`+of("rival")+`,result="invalid_credentials"}`, 0, 6000),
		line(`marketplane_condition{`+told("rival")+`,type="Ready",status="False"}`, 1, 0),
		line(`marketplane_condition{`+told("rival")+`,type="Stalled",status="True"}`, 1, 0),
		line(`marketplane_marketplace_next_key_rotation_timestamp_seconds{`+told("rival")+`}`, -9000, 0),
	}
}

// What each trouble fires, and that nothing else does. The time that an alert
// must hold for is Prometheus' to count, and not simulated.
func TestAlerts(t *testing.T) {
	const (
		messaging = `component="messaging",pod="messaging-0"`
		auth      = `component="auth",pod="auth-0"`
	)
	all := func(metric string, from, step float64) map[string]*series {
		changes := map[string]*series{}
		for _, component := range []string{"auth", "tasks", "messaging"} {
			changes[metric+`{component="`+component+`",pod="`+component+`-0"}`] = &series{from: from, step: step}
		}
		return changes
	}
	tests := map[string]struct {
		// change holds new values by metric; nil takes the series away. New ones
		// carry their labels.
		change map[string]*series
		want   []string
	}{
		"nothing is the matter": {nil, nil},
		"a service has no pods any more": {
			map[string]*series{`up{` + auth + `}`: {from: 1, last: hour - 10}},
			[]string{"MarketplaneServiceDown"},
		},
		"a service does not answer any more": {
			map[string]*series{
				`up{` + messaging + `}`: {from: 1, last: hour - 10},
				"new":                   {labels: `up{` + of("shop") + `,component="messaging",pod="messaging-1"}`},
			},
			[]string{"MarketplaneServiceDown"},
		},
		// Policies let no Prometheus in, or none looks: nobody is woken for that.
		"a service was never scraped":               {map[string]*series{`up{` + auth + `}`: nil}, nil},
		"Prometheus never got through to a service": {map[string]*series{`up{` + auth + `}`: {}}, nil},
		"the database is away": {
			all("marketplane_session_ends_lag_seconds", 0, 60),
			[]string{"MarketplaneDatabaseUnreachable", "MarketplaneSessionEndsLate"},
		},
		"one pod does not read": {
			map[string]*series{`marketplane_session_ends_lag_seconds{` + auth + `}`: {step: 60}},
			[]string{"MarketplaneSessionEndsLate"},
		},
		"requests fail": {
			map[string]*series{`marketplane_http_request_duration_seconds_count{` + auth + `,status="503"}`: {step: 60}},
			[]string{"MarketplaneRequestsFailing"},
		},
		"commits fail": {
			map[string]*series{`marketplane_messaging_commit_duration_seconds_count{` + messaging + `,result="unavailable"}`: {step: 60}},
			[]string{"MarketplaneMessagesNotCommitted"},
		},
		"commits are slow": {
			map[string]*series{`marketplane_messaging_commit_duration_seconds_bucket{` + messaging + `,result="ok",le="0.5"}`: {step: 300}},
			[]string{"MarketplaneMessagesSlow"},
		},
		"connections are refused": {
			map[string]*series{`marketplane_messaging_connections_refused_total{` + messaging + `}`: {step: 1}},
			[]string{"MarketplaneConnectionsRefused"},
		},
		"not ready": {
			map[string]*series{
				`marketplane_condition{type="Ready",status="True"}`: nil,
				"new": {labels: `marketplane_condition{` + told("shop") + `,type="Ready",status="Unknown"}`, from: 1},
			},
			[]string{"MarketplaneNotReady"},
		},
		"stalled": {
			map[string]*series{"new": {labels: `marketplane_condition{` + told("shop") + `,type="Stalled",status="True"}`, from: 1}},
			[]string{"MarketplaneStalled"},
		},
		"the operator is silent": {
			map[string]*series{`marketplane_marketplace_info{version="v0.2.0"}`: {from: 1, last: hour - 10}},
			[]string{"MarketplaneNotTold"},
		},
		"the operator was never scraped": {map[string]*series{`marketplane_marketplace_info{version="v0.2.0"}`: nil}, nil},
		"no process does a consumer's work": {
			map[string]*series{`marketplane_event_consumer_lag_seconds{` + messaging + `,consumer="messaging.inbox"}`: {step: 60}},
			[]string{"MarketplaneEventsLate"},
		},
		"the webhook takes no notifications": {
			map[string]*series{`marketplane_messaging_notifications_lag_seconds{` + messaging + `}`: {from: 16, step: 60}},
			[]string{"MarketplaneNotificationsLate"},
		},
		"a pod is without the bus": {
			map[string]*series{`marketplane_bus_connected{` + auth + `}`: {from: 0}},
			[]string{"MarketplaneBusUnreachable"},
		},
		"a pod uses its whole pool": {
			map[string]*series{`marketplane_database_connections_in_use{` + auth + `}`: {from: 10}},
			[]string{"MarketplaneDatabaseConnectionsExhausted"},
		},
		"messaging is at its maximum": {
			map[string]*series{`marketplane_marketplace_messaging_target_replicas{}`: {from: 9}},
			[]string{"MarketplaneMessagingAtMaximum"},
		},
		"messaging has no maximum": {
			map[string]*series{`marketplane_marketplace_messaging_max_replicas{}`: nil},
			nil,
		},
		"pods do not tell their load": {
			map[string]*series{`marketplane_marketplace_messaging_unknown_pods{}`: {from: 1}},
			[]string{"MarketplaneMessagingUntold"},
		},
		"someone guesses passwords": {
			map[string]*series{`marketplane_auth_logins_total{` + auth + `,result="invalid_credentials"}`: {step: 6000}},
			[]string{"MarketplaneLoginsRefused"},
		},
		"someone guesses passwords, and nobody logs in": {
			map[string]*series{
				`marketplane_auth_logins_total{` + auth + `,result="ok"}`:                  nil,
				`marketplane_auth_logins_total{` + auth + `,result="invalid_credentials"}`: {step: 600},
			},
			[]string{"MarketplaneLoginsRefused"},
		},
		"many mistype in the rush": {
			map[string]*series{`marketplane_auth_logins_total{` + auth + `,result="invalid_credentials"}`: {step: 600}},
			nil,
		},
		"a key is overdue": {
			map[string]*series{`marketplane_marketplace_next_key_rotation_timestamp_seconds{}`: {from: -1000}},
			[]string{"MarketplaneKeyRotationOverdue"},
		},
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	fired := map[string]bool{}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			present := healthy()
			for key, change := range tt.change {
				old, ok := present[key]
				switch {
				case !ok && (change == nil || change.labels == ""):
					t.Fatalf("there is no series %s to change", key)
				case change == nil:
					delete(present, key)
				case ok:
					present[key] = series{old.labels, change.from, change.step, change.last}
				default:
					present[key] = *change
				}
			}
			data := rival()
			for _, s := range present {
				data = append(data, s)
			}
			var got []string
			for _, alert := range firing(t, engine, newMemory(t, data)) {
				got = append(got, alert)
				fired[alert] = true
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("alerts that fire (-want +got):\n%s", diff)
			}
		})
	}
	for _, rule := range read(t).PrometheusRule.Spec.Groups[0].Rules {
		if !fired[rule.Alert] {
			t.Errorf("%s fires in no case above", rule.Alert)
		}
	}
}

// firing are the alerts whose expression has a result in the last minute, each
// once, sorted.
func firing(t *testing.T, engine *promql.Engine, data *memory) []string {
	t.Helper()
	var names []string
	for _, rule := range read(t).PrometheusRule.Spec.Groups[0].Rules {
		query, err := engine.NewInstantQuery(t.Context(), data, nil, rule.Expr, time.Unix((hour-1)*60, 0))
		if err != nil {
			t.Fatalf("%s: %v", rule.Alert, err)
		}
		result := query.Exec(t.Context())
		vector, err := result.Vector()
		if err != nil {
			t.Fatalf("%s: %v", rule.Alert, err)
		}
		if len(vector) > 0 {
			names = append(names, rule.Alert)
		}
		query.Close()
	}
	slices.Sort(names)
	return slices.Compact(names)
}

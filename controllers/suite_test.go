package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers"
	"github.com/marketplane/marketplane/controllers/load"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// patience is how long a test waits for what should come.
const patience = 60 * time.Second

// operatorUser is whom the operator acts as: a user with the generated role
// and no other right.
const operatorUser = "marketplane-operator"

// cluster is the API server that all tests of this package share.
type cluster struct {
	config *rest.Config
	scheme *runtime.Scheme
}

var shared cluster

func TestMain(m *testing.M) {
	os.Exit(runSuite(m))
}

func runSuite(m *testing.M) int {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "these tests need kube-apiserver and etcd: run make test, or set KUBEBUILDER_ASSETS to what `go run -C hack/cluster . assets` prints")
		return 1
	}
	quiet := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ctrl.SetLogger(quiet)
	klog.SetLogger(quiet)
	env := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	// The tests make more Services than the default range holds.
	env.ControlPlane.GetAPIServer().Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	kubernetes, err := env.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start kube-apiserver and etcd:", err)
		return 1
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop kube-apiserver and etcd:", err)
		}
	}()
	kubernetes.QPS, kubernetes.Burst = 1000, 2000
	shared = cluster{config: kubernetes, scheme: runtime.NewScheme()}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(shared.scheme); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := bindOperator(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// bindOperator gives the operator the role that it is installed with.
func bindOperator() error {
	c, err := client.New(shared.config, client.Options{Scheme: shared.scheme})
	if err != nil {
		return err
	}
	document, err := os.ReadFile(filepath.Join("..", "config", "rbac", "role.yaml"))
	if err != nil {
		return err
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(document, role); err != nil {
		return fmt.Errorf("read the operator's role: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: operatorUser}},
	}
	for _, object := range []client.Object{role, binding} {
		if err := c.Create(context.Background(), object); err != nil {
			return err
		}
	}
	return nil
}

// world is one namespace with one operator that looks after it alone.
type world struct {
	t         *testing.T
	ctx       context.Context
	client    client.WithWatch
	namespace string
	config    controllers.Config
	// longestPause is the operator's between two looks; 0 leaves it to itself.
	longestPause time.Duration
	loadPort     int
	// looks counts how often the operator asked for the time: it grows with
	// every look at a Marketplace.
	looks atomic.Int64
	// requests counts what the operator asked of the API server, but watches and
	// the look, every few seconds, at which APIs there are.
	requests atomic.Int64
	// registry has the metrics of the operator that was started last.
	registry *prometheus.Registry
	// ahead is by how much the operator's clock is ahead of the real one.
	ahead atomic.Int64
	// intercept stands between the operator and the API server where it is set.
	intercept atomic.Pointer[interceptor]
	// log of the operators: all of it goes to logged, and errors to the test's
	// output, too.
	log    logr.Logger
	logged *logBuffer
	// frozen keeps runEverything from running what is applied.
	frozen atomic.Bool
}

// logBuffer holds what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newWorld makes a namespace. Operators are started in it by the test.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newWorldAlone(t)
}

// newWorldAlone is newWorld for a test that changes the whole cluster: none of
// the parallel ones runs meanwhile.
func newWorldAlone(t *testing.T) *world {
	t.Helper()
	c, err := client.NewWithWatch(shared.config, client.Options{Scheme: shared.scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	logged := &logBuffer{}
	return &world{
		t: t, ctx: t.Context(), client: c, namespace: ns.Name,
		log: logr.FromSlogHandler(slog.NewMultiHandler(
			slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}),
			slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		logged:   logged,
		loadPort: contract.InternalPort,
		config: controllers.Config{
			Release:         contract.Release,
			Image:           "marketplane:one",
			PreviousRelease: contract.PreviousRelease,
			PreviousImage:   "marketplane:before",
			PostgresImage:   "postgres:17",
			Namespace:       "marketplane-system",
		},
		longestPause: 100 * time.Millisecond,
	}
}

// startOperator runs an operator until the returned function is called, or the
// test ends.
func (w *world) startOperator() (stop func()) {
	w.t.Helper()
	as := rest.CopyConfig(shared.config)
	as.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:authenticated"}}
	as.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			discovery := strings.Count(r.URL.Path, "/") == 3 && strings.HasPrefix(r.URL.Path, "/apis/")
			if r.URL.Query().Get("watch") == "" && !discovery {
				w.requests.Add(1)
			}
			if intercept := w.intercept.Load(); intercept != nil {
				return (*intercept)(r, next)
			}
			return next.RoundTrip(r)
		})
	})
	skip := true
	mgr, err := ctrl.NewManager(as, ctrl.Options{
		Scheme:     shared.scheme,
		Logger:     w.log,
		Cache:      controllers.CacheOptions([]string{w.namespace}),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.registry = prometheus.NewPedanticRegistry()
	w.registry.MustRegister(metrics.NewMarketplaces(mgr.GetClient(), mgr.Elected(), logr.Discard()))
	r := &controllers.Reconciler{
		Client:   mgr.GetClient(),
		Live:     mgr.GetAPIReader(),
		Recorder: mgr.GetEventRecorder("marketplane-operator"),
		Load:     load.NewHTTPReader(w.loadPort),
		Changes:  metrics.NewChanges(w.registry),
		Now:      w.now,
		Config:   w.config,
	}
	r.LookOften(w.longestPause)
	if err := r.SetupWithManager(mgr); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	var stopped atomic.Bool
	stop = func() {
		if !stopped.CompareAndSwap(false, true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("operator: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// now is the operator's clock.
func (w *world) now() time.Time {
	w.looks.Add(1)
	return time.Now().Add(time.Duration(w.ahead.Load()))
}

// interceptor does what next does, or something else.
type interceptor func(r *http.Request, next http.RoundTripper) (*http.Response, error)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// marketplace creates a Marketplace with this spec, given as YAML.
func (w *world) marketplace(name, spec string) *v1alpha1.Marketplace {
	w.t.Helper()
	m, err := w.tryMarketplace(name, spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) tryMarketplace(name, spec string) (*v1alpha1.Marketplace, error) {
	m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	u, err := unstructuredMarketplace(m, spec)
	if err != nil {
		return nil, err
	}
	if err := w.client.Create(w.ctx, u); err != nil {
		return nil, err
	}
	return m, w.client.Get(w.ctx, client.ObjectKeyFromObject(m), m)
}

// eventually waits until check has no complaint.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(w.ctx, 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		w.t.Fatalf("%s: %v", what, last)
	}
}

// looked waits until the operator has looked at its Marketplaces some more.
func (w *world) looked() {
	w.t.Helper()
	from := w.looks.Load()
	w.eventually("operator looks again", func() error {
		if n := w.looks.Load() - from; n < 30 {
			return fmt.Errorf("asked for the time %d times", n)
		}
		return nil
	})
}

// get reads an object of the world's namespace.
func (w *world) get(name string, object client.Object) error {
	return w.client.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, object)
}

// edit changes an object as a person does with kubectl edit: what the operator
// writes at the same time, a status for one, is no conflict.
func (w *world) edit(object client.Object, change func()) {
	w.t.Helper()
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		w.t.Fatalf("a copy of a %T is no object", object)
	}
	change()
	w.must(w.client.Patch(w.ctx, object, client.MergeFrom(before), client.FieldOwner("kubectl-edit")))
}

// orFound is err, or says that there was none.
func orFound(err error) error {
	if err == nil {
		return errors.New("it is still there")
	}
	return err
}

// must fails the test at once on an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

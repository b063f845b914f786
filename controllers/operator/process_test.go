package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

const (
	// patience is how long a test waits for what should come.
	patience = 90 * time.Second
	// leaseDuration is for how long a leader that was killed holds its lease.
	leaseDuration = 15 * time.Second
)

// root is where main.go and config are.
var root = filepath.Join("..", "..")

// installation is a cluster with the operator's program, CRD and rights.
type installation struct {
	t          *testing.T
	client     client.Client
	program    string
	kubeconfig []byte
	namespace  string
}

func install(t *testing.T) *installation {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("this test needs kube-apiserver and etcd: run make test, or set KUBEBUILDER_ASSETS to what `go run -C hack/cluster . assets` prints")
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
	i := &installation{t: t, program: filepath.Join(t.TempDir(), Name), namespace: "marketplane-system"}
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", i.program, root).CombinedOutput(); err != nil {
		t.Fatalf("build the operator: %v\n%s", err, output)
	}
	env := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	kubernetes, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		i.must(add(scheme))
	}
	i.client, err = client.New(kubernetes, client.Options{Scheme: scheme})
	i.must(err)
	i.makeNamespace(i.namespace)

	user := "system:serviceaccount:" + i.namespace + ":marketplane-operator"
	role, election := &rbacv1.ClusterRole{}, &rbacv1.Role{}
	for file, into := range map[string]any{"role.yaml": role, "leader_election_role.yaml": election} {
		document, err := os.ReadFile(filepath.Join(root, "config", "rbac", file))
		i.must(err)
		i.must(yaml.Unmarshal(document, into))
	}
	// As the chart does for the name of its release: the one user here leads under
	// the names of several.
	for rule := range election.Rules {
		if len(election.Rules[rule].ResourceNames) > 0 {
			election.Rules[rule].ResourceNames = []string{Name, "one", "two"}
		}
	}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	for _, object := range []client.Object{
		role, election,
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: election.Name, Namespace: i.namespace}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: election.Name},
		},
	} {
		i.must(i.client.Create(t.Context(), object))
	}
	operator, err := env.AddUser(envtest.User{Name: user, Groups: []string{"system:serviceaccounts"}}, kubernetes)
	i.must(err)
	i.kubeconfig, err = operator.KubeConfig()
	i.must(err)
	return i
}

func (i *installation) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) makeNamespace(name string) {
	i.t.Helper()
	i.must(i.client.Create(i.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
}

func (i *installation) marketplace(namespace, name string) {
	i.t.Helper()
	i.must(i.client.Create(i.t.Context(), &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}))
}

func (i *installation) eventually(what string, check func() error) {
	i.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(i.t.Context(), 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		i.t.Fatalf("%s: %v", what, last)
	}
}

// awaitApplied waits until an operator has applied something of a Marketplace.
func (i *installation) awaitApplied(namespace, name string) {
	i.t.Helper()
	i.eventually("Marketplace "+name+" is applied", func() error {
		return i.client.Get(i.t.Context(), client.ObjectKey{Namespace: namespace, Name: name + "-auth"}, &corev1.Service{})
	})
}

// operator is a process.
type operator struct {
	command *exec.Cmd
	done    chan struct{}
	err     error
	probes  string
	log     *output
}

// output is what a process writes, to be read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// works says whether the operator looks after Marketplaces, which only the
// leader does.
func (o *operator) works() bool { return strings.Contains(o.log.String(), "Starting workers") }

// start runs an operator that reaches the API server through a proxy, nil for
// none.
func (i *installation) start(through *proxy, args ...string) *operator {
	i.t.Helper()
	config, err := clientcmd.Load(i.kubeconfig)
	i.must(err)
	if through != nil {
		for _, cluster := range config.Clusters {
			cluster.Server = "https://" + through.listener.Addr().String()
		}
	}
	file := filepath.Join(i.t.TempDir(), "kubeconfig")
	i.must(clientcmd.WriteToFile(*config, file))
	var listening net.ListenConfig
	listener, err := listening.Listen(i.t.Context(), "tcp", "127.0.0.1:0")
	i.must(err)
	o := &operator{probes: listener.Addr().String(), done: make(chan struct{}), log: &output{}}
	i.must(listener.Close())
	args = append([]string{
		"--image=marketplane:test", "--namespace=" + i.namespace, "--metrics-bind-address=0", "--health-probe-bind-address=" + o.probes,
		"--leader-elect", "--leader-election-namespace=" + i.namespace,
	}, args...)
	o.command = exec.Command(i.program, args...)
	o.command.Env = []string{"KUBECONFIG=" + file}
	o.command.Stderr = o.log
	i.must(o.command.Start())
	go func() {
		defer close(o.done)
		o.err = o.command.Wait()
	}()
	i.t.Cleanup(func() {
		_ = o.command.Process.Kill()
		<-o.done
		if i.t.Failed() {
			i.t.Logf("log of the operator:\n%s", o.log)
		}
	})
	return o
}

// ended says whether the process has ended by itself.
func (o *operator) ended() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// probe returns how the operator answers the kubelet; 0 for not at all.
func (i *installation) probe(o *operator, path string) int {
	request, err := http.NewRequestWithContext(i.t.Context(), http.MethodGet, "http://"+o.probes+path, nil)
	i.must(err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// proxy stands between an operator and the API server, and can be cut.
type proxy struct {
	listener net.Listener
	target   string
	refused  atomic.Int64
	wg       sync.WaitGroup

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]bool
}

func (i *installation) proxy() *proxy {
	i.t.Helper()
	config, err := clientcmd.Load(i.kubeconfig)
	i.must(err)
	var listening net.ListenConfig
	listener, err := listening.Listen(i.t.Context(), "tcp", "127.0.0.1:0")
	i.must(err)
	p := &proxy{listener: listener, conns: map[net.Conn]bool{}}
	for _, cluster := range config.Clusters {
		server, err := url.Parse(cluster.Server)
		i.must(err)
		p.target = server.Host
	}
	p.wg.Go(p.serve)
	i.t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.pass(conn) })
	}
}

func (p *proxy) pass(from net.Conn) {
	defer from.Close()
	if !p.keep(from) {
		p.refused.Add(1)
		return
	}
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer to.Close()
	if !p.keep(to) {
		return
	}
	p.wg.Go(func() {
		_, _ = io.Copy(to, from)
		_ = to.Close()
	})
	_, _ = io.Copy(from, to)
}

// keep remembers a connection until the next cut; false while the server is away.
func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.away {
		p.conns[conn] = true
	}
	return !p.away
}

// cut takes the API server away.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

// While the API server is away, the leader gives up once, since another may
// lead by now, and the one that is started in its place waits.
func TestAPIServerAway(t *testing.T) {
	i := install(t)
	through := i.proxy()
	first := i.start(through)
	i.makeNamespace("shops")
	i.marketplace("shops", "before")
	i.awaitApplied("shops", "before")

	through.cut()
	since := time.Now()
	i.must(i.client.Delete(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: "before-auth"}}))
	i.marketplace("shops", "meanwhile")
	i.eventually("the leader gives up", func() error {
		if !first.ended() {
			return errors.New("it runs")
		}
		return nil
	})
	var exit *exec.ExitError
	if !errors.As(first.err, &exit) || !strings.Contains(first.log.String(), "leader election lost") {
		t.Errorf("the leader ended with %v, want it to say that it leads no more", first.err)
	}

	second := i.start(through)
	refused := through.refused.Load()
	i.eventually("the next one waits", func() error {
		if live, ready := i.probe(second, "/healthz"), i.probe(second, "/readyz"); live != http.StatusOK || ready != http.StatusServiceUnavailable {
			return fmt.Errorf("/healthz answers %d, /readyz %d", live, ready)
		}
		if n := through.refused.Load() - refused; n < 4 {
			return fmt.Errorf("it has tried %d times", n)
		}
		return nil
	})
	i.eventually("the API server is away for a minute", func() error {
		if away := time.Since(since); away < time.Minute {
			return fmt.Errorf("for %s so far", away)
		}
		return nil
	})
	if second.ended() {
		t.Fatalf("the next one ended: %v", second.err)
	}

	through.mend()
	i.awaitApplied("shops", "meanwhile")
	i.awaitApplied("shops", "before")
	i.eventually("it is ready", func() error {
		if ready := i.probe(second, "/readyz"); ready != http.StatusOK {
			return fmt.Errorf("/readyz answers %d", ready)
		}
		return nil
	})
	if second.ended() {
		t.Errorf("the next one ended: %v", second.err)
	}
}

// holder is who holds a lease.
func (i *installation) holder(lease string) string {
	i.t.Helper()
	found := &coordinationv1.Lease{}
	i.must(i.client.Get(i.t.Context(), client.ObjectKey{Namespace: i.namespace, Name: lease}, found))
	if found.Spec.HolderIdentity == nil {
		return ""
	}
	return *found.Spec.HolderIdentity
}

// Of two operators one leads; when it is killed, or told to stop, the other one
// does. Operators of different namespaces do not meet, and a namespace need not
// be there yet.
func TestOperatorsDoNotFight(t *testing.T) {
	i := install(t)
	i.makeNamespace("one")
	leader := i.start(nil, "--watch-namespaces=one", "--leader-election-id=one")
	i.marketplace("one", "first")
	i.awaitApplied("one", "first")
	first := i.holder("one")
	second := i.start(nil, "--watch-namespaces=one", "--leader-election-id=one")
	other := i.start(nil, "--watch-namespaces=two", "--leader-election-id=two")
	for _, o := range []*operator{second, other} {
		i.eventually("another operator runs", func() error {
			if live := i.probe(o, "/healthz"); live != http.StatusOK {
				return fmt.Errorf("/healthz answers %d", live)
			}
			return nil
		})
	}
	i.makeNamespace("two")
	i.marketplace("two", "first")
	i.awaitApplied("two", "first")
	i.eventually("the second operator asks to lead", func() error {
		if !strings.Contains(second.log.String(), "acquire leader lease") {
			return errors.New("it does not")
		}
		return nil
	})
	i.marketplace("one", "of-two")
	i.awaitApplied("one", "of-two")
	if holder := i.holder("one"); holder != first || second.works() {
		t.Errorf("while the first operator leads, %s holds the lease, before %s; the second one works: %v", holder, first, second.works())
	}

	// Nobody looks after the second namespace now.
	i.must(other.command.Process.Signal(syscall.SIGTERM))
	<-other.done
	if other.err != nil {
		t.Errorf("an operator that is told to stop ended with %v", other.err)
	}
	i.marketplace("two", "alone")

	i.must(leader.command.Process.Kill())
	<-leader.done
	i.marketplace("one", "second")
	i.awaitApplied("one", "second")
	if second.ended() {
		t.Errorf("the second operator ended: %v", second.err)
	}
	if holder := i.holder("one"); holder == first || !second.works() {
		t.Errorf("after the first operator was killed, %s holds the lease, before %s; the second one works: %v", holder, first, second.works())
	}

	// One that is told to stop gives the lease back: nobody waits for its end.
	third := i.start(nil, "--watch-namespaces=one", "--leader-election-id=one")
	i.eventually("the third operator asks to lead", func() error {
		if !strings.Contains(third.log.String(), "acquire leader lease") {
			return errors.New("it does not")
		}
		return nil
	})
	began := time.Now()
	i.must(second.command.Process.Signal(syscall.SIGTERM))
	<-second.done
	if second.err != nil {
		t.Errorf("an operator that is told to stop ended with %v", second.err)
	}
	i.marketplace("one", "third")
	i.awaitApplied("one", "third")
	if took := time.Since(began); took >= leaseDuration {
		t.Errorf("it took %s until another operator had taken over: no sooner than from one that is lost", took)
	}
	err := i.client.Get(t.Context(), client.ObjectKey{Namespace: "two", Name: "alone-auth"}, &corev1.Service{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a Marketplace of a namespace that nobody looks after was applied: %v", err)
	}
}

package desired_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

var update = flag.Bool("update", false, "write the golden files anew")

const uid = "01234567-89ab-cdef-0123-456789abcdef"

func inputs() desired.Inputs {
	return desired.Inputs{
		Installation:  uid,
		Release:       contract.Release,
		Image:         "marketplane:v1",
		PostgresImage: "postgres:17",
		JWKS:          []byte(`{"keys":[]}`),
		Fingerprints: map[string]string{
			"shop-bus": "b0", "shop-database-admin": "d0",
			"shop-database-auth": "a0", "shop-database-tasks": "t0", "shop-database-messaging": "m0",
			"shop-signing": "s0",
		},
		MessagingReplicas: 2,
		OperatorNamespace: "marketplane-system",
	}
}

func marketplace(t *testing.T, spec string) *v1alpha1.Marketplace {
	t.Helper()
	m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "market", UID: uid}}
	if err := yaml.UnmarshalStrict([]byte(spec), &m.Spec); err != nil {
		t.Fatal(err)
	}
	return m
}

// render is every object as YAML, without the scripts, which are files
// already.
func render(t *testing.T, objects []desired.Object) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, object := range objects {
		document, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		if *object.GetName() == "shop-database-scripts" {
			at := bytes.Index(document, []byte("data:"))
			end := bytes.Index(document, []byte("\nkind:"))
			document = append(append(bytes.Clone(document[:at]), "data: (the files in database/)"...), document[end:]...)
		}
		out.WriteString("---\n")
		out.Write(document)
	}
	return out.Bytes()
}

// goldenCases are the Marketplaces whose objects stand in testdata.
var goldenCases = map[string]struct {
	spec   string
	change func(*desired.Inputs)
}{
	"empty": {},
	"everything": {
		spec: `
database:
  embedded:
    storage: {size: 20Gi, className: fast, deletionPolicy: Delete}
    image: postgres:16
    resources: {requests: {cpu: 2, memory: 4Gi}}
bus:
  embedded:
    replicas: 3
    resources: {limits: {cpu: 1, memory: 512Mi}}
auth:
  replicas: 4
  issuer: https://auth.example.com
  trustedProxies: [10.244.0.0/16, 'fd00::/8']
  resources: {limits: {memory: 64Mi}}
tasks:
  replicas: 3
messaging:
  autoscaling: {minReplicas: 2, maxReplicas: 9, targetConnections: 1000}
  drain: {floorSeconds: 3, windowSeconds: 12}
  allowedOrigins: [https://app.example.com, http://localhost:3000]
  support: {userIDs: [01890a5d-ac96-774b-bcce-b302099a8057, 01890a5d-ac96-774b-bcce-b302099a8058]}
  socketIO: {connectionStateRecovery: Disabled}
  notifications:
    url: https://push.example.com:8443/marketplane?tenant=7
    secretRef: {name: push, key: signing}
networkPolicy:
  clientNamespaces: [ingress]
  monitoringNamespaces: [monitoring, marketplane-system]
`,
		change: func(in *desired.Inputs) {
			in.MessagingReplicas = 7
			in.Installation = "another-installation"
		},
	},
	"external": {
		spec: `
database:
  external:
    urlSecretRef: {name: postgres}
    tls: {caSecretRef: {name: postgres-ca}}
bus:
  external:
    urls: [nats://nats-0.example.com:4222, 'tls://nats-1.example.com:4443']
    credentialsSecretRef: {name: nats}
    tls:
      caSecretRef: {name: nats-ca, key: root.pem}
      clientCertificateSecretRef: {name: nats-client}
`,
		change: func(in *desired.Inputs) { in.ExternalDatabasePorts = []int32{5433} },
	},
}

// The objects of this release. -update writes them anew.
func TestBuildGolden(t *testing.T) {
	for name, tt := range goldenCases {
		t.Run(name, func(t *testing.T) {
			in := inputs()
			if tt.change != nil {
				tt.change(&in)
			}
			got := render(t, desired.Build(marketplace(t, tt.spec), in).All())
			golden := filepath.Join("testdata", contract.Release, name+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("objects (-want +got; -update writes them anew):\n%s", diff)
			}
		})
	}
}

// What must replace pods, or run the migration again, changes their template
// or the Job's name; what is read again while they run does not.
func TestWhatReplacesPods(t *testing.T) {
	workloads := func(in desired.Inputs) map[string]string {
		found := map[string]string{}
		for _, object := range desired.Build(marketplace(t, ""), in).All() {
			switch *object.GetKind() {
			case "Deployment", "StatefulSet":
				document, err := yaml.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				found[strings.TrimPrefix(*object.GetName(), "shop-")] = string(document)
			case "Job":
				found["migrate"] = *object.GetName()
			}
		}
		return found
	}
	before := workloads(inputs())
	tests := map[string]struct {
		change func(*desired.Inputs)
		want   []string
	}{
		"nothing":        {func(*desired.Inputs) {}, nil},
		"the image":      {func(in *desired.Inputs) { in.Image = "marketplane:v2" }, []string{"auth", "bus", "messaging", "migrate", "tasks"}},
		"the keys":       {func(in *desired.Inputs) { in.JWKS = []byte("{}"); in.Fingerprints["shop-signing"] = "s1" }, nil},
		"a role":         {func(in *desired.Inputs) { in.Fingerprints["shop-database-tasks"] = "t1" }, []string{"migrate", "tasks"}},
		"the superuser":  {func(in *desired.Inputs) { in.Fingerprints["shop-database-admin"] = "d1" }, []string{"database", "migrate"}},
		"the bus":        {func(in *desired.Inputs) { in.Fingerprints["shop-bus"] = "b1" }, []string{"auth", "bus", "messaging", "tasks"}},
		"the volume":     {func(in *desired.Inputs) { in.Volume = &desired.Volume{Size: resource.MustParse("9Gi")} }, nil},
		"more messaging": {func(in *desired.Inputs) { in.MessagingReplicas = 5 }, []string{"messaging"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := inputs()
			tt.change(&in)
			after := workloads(in)
			var got []string
			for _, component := range []string{"auth", "bus", "database", "messaging", "migrate", "tasks"} {
				if before[component] != after[component] {
					got = append(got, component)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("changed workloads (-want +got):\n%s", diff)
			}
		})
	}
}

// A volume cannot shrink or change its class, so what exists is wanted.
func TestExistingVolumeIsKeptAsItIs(t *testing.T) {
	class := "slow"
	tests := map[string]struct {
		spec      string
		volume    *desired.Volume
		wantSize  string
		wantClass string
	}{
		"new":           {"", nil, "5Gi", ""},
		"smaller asked": {"", &desired.Volume{Size: resource.MustParse("9Gi"), ClassName: &class}, "9Gi", "slow"},
		"larger asked":  {"database: {embedded: {storage: {size: 12Gi}}}", &desired.Volume{Size: resource.MustParse("9Gi")}, "12Gi", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := inputs()
			in.Volume = tt.volume
			for _, object := range desired.Build(marketplace(t, tt.spec), in).All() {
				if *object.GetKind() != "PersistentVolumeClaim" {
					continue
				}
				document, err := yaml.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(document), "storage: "+tt.wantSize+"\n") {
					t.Errorf("size is not %s:\n%s", tt.wantSize, document)
				}
				if got := strings.Contains(string(document), "storageClassName: "+class); got != (tt.wantClass != "") {
					t.Errorf("class is not %q:\n%s", tt.wantClass, document)
				}
			}
		})
	}
}

// What the spec has replaced is not built, and only told of so that it can stay
// until nobody uses it.
func TestEmbeddedPartsLeave(t *testing.T) {
	const database = "database: {external: {urlSecretRef: {name: postgres}}}\n"
	const bus = "bus: {external: {urls: ['nats://nats.example.com:4222']}}\n"
	tests := map[string]struct {
		spec        string
		wantLeaving []string
	}{
		"nothing":      {"", nil},
		"the database": {database, []string{"NetworkPolicy/shop-database", "ConfigMap/shop-database-scripts", "PersistentVolumeClaim/shop-database", "Service/shop-database", "StatefulSet/shop-database"}},
		"the bus":      {bus, []string{"NetworkPolicy/shop-bus", "Service/shop-bus", "StatefulSet/shop-bus"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objects := desired.Build(marketplace(t, tt.spec), inputs())
			built := map[string]bool{}
			for _, object := range objects.All() {
				built[*object.GetKind()+"/"+*object.GetName()] = true
			}
			var leaving []string
			for _, object := range objects.Leaving {
				id := *object.GetKind() + "/" + *object.GetName()
				leaving = append(leaving, id)
				if built[id] {
					t.Errorf("%s is built, too", id)
				}
			}
			if diff := cmp.Diff(tt.wantLeaving, leaving); diff != "" {
				t.Errorf("leaving (-want +got):\n%s", diff)
			}
		})
	}
}

// New credentials of an external bus are read at the next connection: they roll
// nothing. An open one needs no files at all.
func TestExternalBusFiles(t *testing.T) {
	open := "bus: {external: {urls: ['nats://nats.example.com:4222']}}"
	in := inputs()
	render1 := render(t, desired.Build(marketplace(t, open), in).Workloads)
	in.Fingerprints["shop-bus"] = "another"
	render2 := render(t, desired.Build(marketplace(t, open), in).Workloads)
	if diff := cmp.Diff(string(render1), string(render2)); diff != "" {
		t.Errorf("the embedded bus's token matters without it (-before +after):\n%s", diff)
	}
	for _, unwanted := range []string{contract.MountBus, contract.EnvBusTokenFile, contract.EnvBusCAFile, "tls://"} {
		if bytes.Contains(render1, []byte(unwanted)) {
			t.Errorf("an open bus has %s", unwanted)
		}
	}
}

// The longest name leaves room for what StatefulSets and Jobs append to it.
func TestNamesFit(t *testing.T) {
	m := marketplace(t, "bus: {embedded: {replicas: 3}}")
	m.Name = strings.Repeat("n", 40)
	for _, object := range desired.Build(m, inputs()).All() {
		limit := 63
		if *object.GetKind() == "StatefulSet" {
			limit -= len("-1234567890") // the revision hash in a label of its pods
		}
		if n := len(*object.GetName()); n > limit {
			t.Errorf("%s %s has %d characters, more than %d", *object.GetKind(), *object.GetName(), n, limit)
		}
	}
	if role := contract.DatabaseRole(uid, contract.ComponentMessaging); len(role) > 63 {
		t.Errorf("role %s is longer than PostgreSQL keeps", role)
	}
}

package load_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/load"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// server speaks as much of the native protocol as the generator does, for
// conversations of two.
type server struct {
	mu sync.Mutex
	// sockets and streams are by user; a cursor is a place in a stream.
	sockets map[string]*websocket.Conn
	streams map[string][]string
	refuse  bool
}

type object struct {
	ID     int             `json:"id"`
	Op     string          `json:"op"`
	Token  string          `json:"token"`
	Cursor string          `json:"cursor"`
	Body   json.RawMessage `json:"body"`
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"marketplane.v1"}})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	say := func(to *websocket.Conn, text string) {
		_ = to.Write(r.Context(), websocket.MessageText, []byte(text+"\n"))
	}
	say(ws, `{"op":"hello"}`)
	// The address is the user: see plan.Address.
	user := r.RemoteAddr[strings.LastIndexByte(r.RemoteAddr[:strings.IndexByte(r.RemoteAddr, ':')], '.')+1 : strings.IndexByte(r.RemoteAddr, ':')]
	n, _ := strconv.Atoi(user)
	partner := strconv.Itoa(n ^ 1)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sockets[user] == ws {
			delete(s.sockets, user)
		}
	}()
	for {
		_, frame, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		var o object
		if json.Unmarshal(frame, &o) != nil {
			return
		}
		s.mu.Lock()
		switch o.Op {
		case "auth":
			s.sockets[user] = ws
			at, err := strconv.Atoi(o.Cursor)
			if err != nil {
				at = len(s.streams[user])
			}
			say(ws, `{"re":1,"ok":{"cursor":"`+strconv.Itoa(at)+`","recovered":`+strconv.FormatBool(err == nil)+`}}`)
			for _, message := range s.streams[user][at:] {
				say(ws, message)
			}
		case "send":
			if s.refuse {
				say(ws, `{"re":`+strconv.Itoa(o.ID)+`,"error":{"code":"rate_limited"}}`)
				break
			}
			say(ws, `{"re":`+strconv.Itoa(o.ID)+`,"ok":{}}`)
			for _, member := range []string{user, partner} {
				message := `{"op":"message","cursor":"` + strconv.Itoa(len(s.streams[member])+1) + `","body":` + string(o.Body) + `}`
				s.streams[member] = append(s.streams[member], message)
				if to := s.sockets[member]; to != nil {
					say(to, message)
				}
			}
		case "typing":
			if to := s.sockets[partner]; to != nil {
				say(to, `{"op":"typing"}`)
			}
		}
		s.mu.Unlock()
	}
}

// script runs steps against a server, and returns what came of them.
func script(t *testing.T, s *server, steps ...plan.Step) []plan.Result {
	t.Helper()
	s.sockets, s.streams = map[string]*websocket.Conn{}, map[string][]string{}
	listening := httptest.NewServer(s)
	t.Cleanup(listening.Close)
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := contract.SigningKeys{Keys: []contract.SigningKey{key}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	in, steering := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- load.Run(t.Context(), in, out) }()
	write, read := json.NewEncoder(steering), json.NewDecoder(answers)
	ask := func(what any) (result plan.Result) {
		t.Helper()
		if err := write.Encode(what); err != nil {
			t.Fatal(err)
		}
		if err := read.Decode(&result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	ask(plan.Job{
		Protocol: plan.Native, Targets: []string{listening.Listener.Addr().String()}, Users: 10, Members: 2,
		Issuer: "https://test", SigningKeys: keys,
	})
	var results []plan.Result
	for _, step := range steps {
		results = append(results, ask(step))
	}
	_ = steering.Close()
	if err := <-ended; err != nil {
		t.Errorf("the generator ended with %v", err)
	}
	return results
}

func TestSteps(t *testing.T) {
	results := script(t, &server{},
		plan.Step{Do: plan.Connect, Rate: 1000},
		plan.Step{Do: plan.Send, Rate: 100, Lasting: 200 * time.Millisecond},
		plan.Step{Do: plan.Typing, Rate: 100, Lasting: 200 * time.Millisecond},
		plan.Step{Do: plan.Exchange, Lasting: 200 * time.Millisecond},
		plan.Step{Do: plan.Drop, Members: 1},
		plan.Step{Do: plan.Send, Rate: 100, Lasting: 100 * time.Millisecond, Members: 1},
		plan.Step{Do: plan.Connect, InFlight: 2, Missed: 2},
		plan.Step{Do: plan.Hold, Lasting: time.Millisecond})
	for i, r := range results {
		if r.Error != "" {
			t.Fatalf("step %d: %s", i, r.Error)
		}
	}
	type counts struct{ Done, Acked, Delivered int }
	count := func(i int) counts { return counts{results[i].Done, results[i].Acked, results[i].Delivered} }
	for i, want := range map[int]counts{
		0: {Done: 10},
		1: {Done: 20, Acked: 20, Delivered: 40},
		2: {Done: 20, Delivered: 20},
		4: {Done: 5},
		5: {Done: 10, Acked: 10, Delivered: 10},
		6: {Done: 5},
	} {
		if got := count(i); got != want {
			t.Errorf("step %d: %+v, want %+v", i, got, want)
		}
	}
	// In a closed loop all but the last answers come in time.
	if r := results[3]; r.Acked == 0 || r.Done != r.Acked+5 || r.Delivered != 2*r.Done {
		t.Errorf("exchange: %+v", r)
	}
	if r := results[1]; r.Ack.P50 == 0 || r.Delivery.P99 < r.Delivery.P50 || r.Processor == 0 || r.Took < 190*time.Millisecond {
		t.Errorf("what was measured of sends: %+v", r)
	}
}

func TestRefusalsFailAStep(t *testing.T) {
	results := script(t, &server{refuse: true},
		plan.Step{Do: plan.Connect}, plan.Step{Do: plan.Send, Rate: 100, Lasting: 100 * time.Millisecond})
	if !strings.Contains(results[1].Error, "rate_limited") {
		t.Errorf("the step ended with %+v", results[1])
	}
}

func TestRunRefusesNonsense(t *testing.T) {
	for name, input := range map[string]string{"no JSON": "x", "no targets": `{"protocol":"native","users":1,"members":1}`, "no such protocol": `{"protocol":"x"}`} {
		if err := load.Run(t.Context(), strings.NewReader(input), &bytes.Buffer{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

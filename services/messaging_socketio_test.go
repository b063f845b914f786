package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/client/stockclient"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/wsconn"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
)

// plainService stands before processes, as a Service without affinity does: each
// request goes to the next one.
type plainService struct {
	*httptest.Server

	mu        sync.Mutex
	processes []*messagingProcess
	next      int
	// before, if set, is told of each request, and may wait.
	before func(r *http.Request)
}

func newPlainService(t *testing.T, processes ...*messagingProcess) *plainService {
	t.Helper()
	s := &plainService{processes: processes}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			s.mu.Lock()
			before := s.before
			s.mu.Unlock()
			if before != nil {
				before(r.In)
			}
			r.Out.URL.Scheme, r.Out.URL.Host = "http", s.choose()
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	s.Server = httptest.NewServer(proxy)
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return s
}

func (s *plainService) choose() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.processes[s.next%len(s.processes)].public
}

func (s *plainService) watch(before func(r *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// remove takes a process out, as it happens with a pod that is gone.
func (s *plainService) remove(p *messagingProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = slices.DeleteFunc(s.processes, func(other *messagingProcess) bool { return other == p })
}

// first has the next request go to a process.
func (s *plainService) first(p *messagingProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = slices.Index(s.processes, p) + len(s.processes) - 1
}

// stockChat is a conversation of two stock clients.
type stockChat struct {
	t            *testing.T
	p            *messagingProcess
	driver       *stockclient.Driver
	conversation string
	sent, got    int
}

// options are a stock client's, of a user.
func (p *messagingProcess) stockOptions(user uuid.UUID, transports ...string) map[string]any {
	p.t.Helper()
	token, _, err := p.signer.Sign(user, uuid.New())
	if err != nil {
		p.t.Fatal(err)
	}
	o := map[string]any{"auth": map[string]any{"token": token}}
	if len(transports) > 0 {
		o["transports"] = transports
	}
	return o
}

// startStockChat connects the tasker to a process that stays, and the client by a service.
func startStockChat(t *testing.T, p *messagingProcess, s *plainService, transports ...string) *stockChat {
	t.Helper()
	c := &stockChat{t: t, p: p, driver: stockclient.Start(t, time.Minute)}
	client, tasker, task := uuid.New(), uuid.New(), uuid.New()
	c.driver.Enter("tasker", "http://"+p.public, p.stockOptions(tasker, "websocket"))
	c.driver.Enter("client", s.URL, p.stockOptions(client, transports...))
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"}})
	for _, name := range []string{"tasker", "client"} {
		c.conversation = c.hears(name, "task")["conversation_id"].(string)
	}
	return c
}

// hears waits for a client's next event of a name.
func (c *stockChat) hears(client, name string) map[string]any {
	c.t.Helper()
	h := c.driver.Find(func(h stockclient.Happening) bool { return h.Client == client && h.Event == name && h.What == "event" })
	fields, ok := h.Args[0].(map[string]any)
	if !ok {
		c.t.Fatalf("%s", h)
	}
	return fields
}

// send has the tasker send messages, each of which is acknowledged.
func (c *stockChat) send(n int) {
	c.t.Helper()
	for range n {
		c.sent++
		c.driver.Emit("tasker", "send", map[string]any{
			"conversation_id": c.conversation, "client_id": uuid.New(), "body": map[string]any{"n": c.sent},
		})
		h := c.driver.Find(func(h stockclient.Happening) bool { return h.Client == "tasker" && h.What == "ack" })
		if answer, ok := h.Args[0].(map[string]any); !ok || answer["ok"] != true {
			c.t.Fatalf("%s", h)
		}
	}
}

// receive has the client receive all that was sent, each message once and in order.
func (c *stockChat) receive() {
	c.t.Helper()
	for c.got < c.sent {
		c.got++
		if body := fmt.Sprint(c.hears("client", "message")["body"]); body != fmt.Sprintf("map[n:%d]", c.got) {
			c.t.Fatalf("message %d is %s", c.got, body)
		}
	}
}

// back waits until the client is there again, and says whether it was recovered.
func (c *stockChat) back() bool {
	c.t.Helper()
	return c.driver.Find(func(h stockclient.Happening) bool { return h.Client == "client" && h.What == "connect" }).Recovered
}

// startProcesses starts processes that know their addresses: the first one stays, and
// the others can be killed.
func startProcesses(t *testing.T, n int) (stays *messagingProcess, others []*messagingProcess, kill map[*messagingProcess]*exec.Cmd) {
	t.Helper()
	stays = startMessaging(t, map[string]string{
		contract.EnvDrainFloor: "0s", contract.EnvDrainWindow: "0s", contract.EnvAddress: "127.0.0.1",
	})
	t.Cleanup(func() {
		stays.terminate()
		if err := <-stays.ended; err != nil {
			t.Error(err)
		}
	})
	kill = map[*messagingProcess]*exec.Cmd{}
	for range n - 1 {
		other, command := stays.startAnother(newValve(t, stays.settings[contract.EnvBusURL]))
		others, kill[other] = append(others, other), command
	}
	return stays, others, kill
}

// A stock client with default options works through a plain Service, and a killed
// owner of its session loses it nothing: while it polls, in the middle of the
// upgrade, and after it.
func TestStockClientsNeedNoAffinity(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{2, 3} {
		for name, transports := range map[string][]string{"polling": {"polling"}, "upgrade": nil, "upgraded": nil, "websocket": {"websocket"}} {
			t.Run(fmt.Sprintf("%d processes, killed during %s", processes, name), func(t *testing.T) {
				t.Parallel()
				stays, others, kill := startProcesses(t, processes)
				owner := others[0]
				service := newPlainService(t, append([]*messagingProcess{stays}, others...)...)
				service.first(owner)
				// The upgrade waits until the session has something to lose.
				upgrading, proceed := make(chan struct{}, 1), make(chan struct{})
				release := sync.OnceFunc(func() { close(proceed) })
				defer release()
				if name == "upgrade" {
					service.watch(func(r *http.Request) {
						if wsconn.IsUpgrade(r) && r.URL.Query().Get("sid") != "" {
							select {
							case upgrading <- struct{}{}:
								<-proceed
							default:
							}
						}
					})
				}
				c := startStockChat(t, stays, service, transports...)
				c.send(3)
				switch name {
				case "upgrade":
					<-upgrading
				case "upgraded":
					c.driver.UntilUpgraded("client")
				default:
				}
				c.receive()
				if err := kill[owner].Process.Kill(); err != nil {
					t.Fatal(err)
				}
				service.remove(owner)
				release()
				c.send(3)
				if !c.back() {
					t.Error("it was not recovered")
				}
				c.receive()
				c.send(3)
				c.receive()
			})
		}
	}
}

// A process that is told to stop drains at once, whoever polls: clients of its own, and
// of others that are forwarded through it. They come back elsewhere, and are
// recovered.
func TestADrainWaitsForNoPoll(t *testing.T) {
	t.Parallel()
	stays, others, commands := startProcesses(t, 2)
	goes := others[0]
	service := newPlainService(t, stays, goes)
	var owned, forwarded *stockChat
	for _, c := range []struct {
		chat  **stockChat
		owner *messagingProcess
	}{{&owned, goes}, {&forwarded, stays}} {
		service.first(c.owner)
		*c.chat = startStockChat(t, stays, service, "polling")
		(*c.chat).send(2)
		(*c.chat).receive()
	}
	began := time.Now()
	if err := commands[goes].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	service.remove(goes)
	if err := <-goes.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if took := time.Since(began); took > 15*time.Second { // a poll takes 25 s
		t.Errorf("it took %s", took)
	}
	for _, c := range []*stockChat{owned, forwarded} {
		c.send(2)
		c.receive()
	}
}

// A user on both doors is one user: each hears what he sends by the other, what was
// sent by one is a duplicate by the other, and the end of the session ends both.
func TestBothDoorsAreOne(t *testing.T) {
	t.Parallel()
	p, _, _ := startProcesses(t, 1)
	driver := stockclient.Start(t, time.Minute)
	user, session, tasker, task := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	native, got := p.connect(user, session)
	token, _, err := p.signer.Sign(user, session)
	if err != nil {
		t.Fatal(err)
	}
	driver.Enter("stock", "http://"+p.public, map[string]any{"auth": map[string]any{"token": token}})
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: user, TaskerID: tasker, Title: "Shelves"}})
	conversation := p.offered(got)
	key := uuid.New()
	driver.Emit("stock", "send", map[string]any{"conversation_id": conversation, "client_id": key, "body": map[string]any{"from": "stock"}})
	p.want(got, `{"from": "stock"}`)
	say := func(format string, args ...any) {
		t.Helper()
		if err := native.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	say(`{"id":5,"op":"send","conversation_id":%q,"client_id":%q,"body":{"from":"stock"}}`, conversation, key)
	p.want(got, `"duplicate":true`)
	say(`{"id":6,"op":"send","conversation_id":%q,"client_id":%q,"body":{"from":"native"}}`, conversation, uuid.New())
	driver.Find(func(h stockclient.Happening) bool {
		return h.Event == "message" && strings.Contains(fmt.Sprint(h.Args), "from:native")
	})
	p.append(events.Event{Subject: session, Data: events.SessionEnded{SessionID: session, UserID: user, Reason: "logged_out"}})
	p.want(got, "closed 4001")
	if h := driver.Find(func(h stockclient.Happening) bool { return h.What == "disconnect" }); h.Reason != "io server disconnect" {
		t.Errorf("%s", h)
	}
}

// Requests that another process forwarded are all that the internal port takes for
// Socket.IO: nobody begins a session there.
func TestInternalPortBeginsNoSessions(t *testing.T) {
	t.Parallel()
	p, _, _ := startProcesses(t, 1)
	for _, query := range []string{"EIO=4&transport=polling", "EIO=4&transport=polling&sid=x"} {
		response, err := http.Get("http://" + p.internal + sioapi.Path + "?" + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", query, response.Status)
		}
	}
}

// What a process forwards is told as its load, beside what others hold.
func TestWhatIsForwardedIsLoad(t *testing.T) {
	t.Parallel()
	owner, others, _ := startProcesses(t, 2)
	poll := func(ctx context.Context, p *messagingProcess, sid string) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.public+sioapi.Path+"?EIO=4&transport=polling"+sid, nil)
		if err != nil {
			return "", err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	for _, p := range []*messagingProcess{owner, others[0]} {
		p.await("Socket.IO", func() bool { // which opens a moment after the process is ready
			body, err := poll(t.Context(), p, "")
			return err == nil && strings.HasPrefix(body, "0{")
		})
	}
	body, err := poll(t.Context(), owner, "")
	if err != nil {
		t.Fatal(err)
	}
	var session struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &session); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = poll(ctx, others[0], "&sid="+url.QueryEscape(session.SID)) // until it is given up
	}()
	others[0].await("a forwarded poll", func() bool { return others[0].load().Forwarded == 1 })
	if n := owner.load().Forwarded; n != 0 {
		t.Errorf("the owner forwards %d", n)
	}
	cancel()
	<-done
	others[0].await("nothing forwarded", func() bool { return others[0].load().Forwarded == 0 })
}

// rawStock is a Socket.IO client that says what the test says.
type rawStock struct {
	t  *testing.T
	ws *websocket.Conn
}

func (p *messagingProcess) dialStock() *rawStock {
	p.t.Helper()
	ws, _, err := websocket.Dial(p.t.Context(), "ws://"+p.public+sioapi.Path+"?EIO=4&transport=websocket", nil) //nolint:bodyclose // the library closes it
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = ws.CloseNow() })
	return &rawStock{p.t, ws}
}

// connectStock connects a client with a token.
func (p *messagingProcess) connectStock(token string) *rawStock {
	p.t.Helper()
	r := p.dialStock()
	r.say(fmt.Sprintf("40{%q:%q}", "token", token))
	r.next("40")
	return r
}

func (r *rawStock) say(packet string) {
	r.t.Helper()
	if err := r.ws.Write(r.t.Context(), websocket.MessageText, []byte(packet)); err != nil {
		r.t.Fatal(err)
	}
}

// next reads on until a packet begins with a text; "closed" is the end.
func (r *rawStock) next(begin string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, packet, err := r.ws.Read(ctx)
		if err != nil {
			packet = []byte("closed: " + err.Error())
		}
		if strings.HasPrefix(string(packet), begin) {
			return string(packet)
		}
		if err != nil {
			r.t.Fatalf("%s, and no %s", packet, begin)
		}
	}
}

// While the database lets nobody in, clients that lose their connections are not
// refused: they come back until they are let in, and are recovered.
func TestStockClientsOutlastTheDatabase(t *testing.T) {
	t.Parallel()
	p, _, _ := startProcesses(t, 1)
	service := newPlainService(t, p)
	c := startStockChat(t, p, service)
	c.send(3)
	c.receive()
	admin := p.admin()
	role := contract.DatabaseRole(p.database.Installation, contract.ComponentMessaging)
	execute := func(statement string, args ...any) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	execute("ALTER ROLE " + pgx.Identifier{role}.Sanitize() + " NOLOGIN")
	execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
	c.driver.Say("attempts", "client")
	c.driver.Say("cut", "client")
	for range 4 { // all but the last have failed: it got a session, which was closed
		h := c.driver.Find(func(h stockclient.Happening) bool {
			return h.Client == "client" && (h.What == "connect_error" || h.What == "connect" || h.What == "attempt")
		})
		if h.What != "attempt" {
			t.Fatalf("%s", h)
		}
	}
	execute("ALTER ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN")
	if !c.back() {
		t.Error("it was not recovered")
	}
	c.send(3)
	c.receive()
}

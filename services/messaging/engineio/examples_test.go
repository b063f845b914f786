package engineio_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// echo sends back what it is sent.
type echo struct{ conn *engineio.Conn }

func (e echo) Message(kind engineio.Kind, payload []byte) <-chan struct{} {
	if e.conn.Send(kind, payload) != nil { // too much waits: the client does not read
		e.conn.Abort()
	}
	return nil
}

func (e echo) Closed(engineio.Reason, error) {}

func Example() {
	server := engineio.NewServer(engineio.Options{}, func(c *engineio.Conn, _ *http.Request) engineio.Handler {
		return echo{c}
	})
	if err := server.Start(); err != nil {
		panic(err)
	}
	defer server.Shutdown(context.Background())
	mux := http.NewServeMux()
	mux.Handle("/any/path/", server)
	web := httptest.NewServer(mux)
	defer web.Close()

	// A client that polls; others upgrade to WebSocket, or begin with it.
	ask := func(response *http.Response, err error) string {
		if err != nil {
			panic(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	url := web.URL + "/any/path/?EIO=4&transport=polling"
	open := ask(http.Get(url))
	_, sid, _ := strings.Cut(open, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	fmt.Println(ask(http.Post(url+"&sid="+sid, "text/plain", strings.NewReader("4hello\x1ebAQIDBA=="))))
	fmt.Printf("%q\n", ask(http.Get(url+"&sid="+sid)))
	fmt.Println(ask(http.Post(url+"&sid="+sid, "text/plain", strings.NewReader("1"))))
	// Output:
	// ok
	// "4hello\x1ebAQIDBA=="
	// ok
}

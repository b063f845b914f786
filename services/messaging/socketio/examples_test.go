package socketio_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// An echo server, for clients that are made with io(url, {path: "/any/path/"}).
func Example() {
	sockets := socketio.NewServer(socketio.Options{})
	sockets.Of("/").OnAny(func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
		if s.Emit(e.Name, e.Args) != nil { // too much waits: the client does not read
			s.Conn().Abort()
		}
		return nil
	})
	engine := engineio.NewServer(engineio.Options{Origin: engineio.Origins("https://app.example.com")}, sockets.Open)
	if err := engine.Start(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/any/path/", engine)
	web := httptest.NewServer(mux)
	defer web.Close()
	defer engine.Shutdown(context.Background()) // before the server's end: a poll waits

	// What a client does that polls.
	ask := func(response *http.Response, err error) string {
		if err != nil {
			panic(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	url := web.URL + "/any/path/?EIO=4&transport=polling"
	url += "&sid=" + regexp.MustCompile(`"sid":"(.*?)"`).FindStringSubmatch(ask(http.Get(url)))[1]
	ask(http.Post(url, "text/plain", strings.NewReader("40\x1e"+`42["hello",{"to":"all"}]`)))
	_, event, _ := strings.Cut(ask(http.Get(url)), "\x1e")
	fmt.Println(event)
	ask(http.Post(url, "text/plain", strings.NewReader("1")))
	// Output: 42["hello",{"to":"all"}]
}

package socketio_test

import (
	"context"
	"net/http"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// An echo server, for the clients that are made with io(url, {path: "/echo/"}).
func Example() {
	sockets := socketio.NewServer(socketio.Options{})
	sockets.Of("/").OnAny(func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
		if e.Ack != nil {
			_ = e.Ack.Send(e.Args)
		} else {
			_ = s.Emit(e.Name, e.Args)
		}
		return nil
	})
	engine := engineio.NewServer(engineio.Options{Origin: engineio.Origins("https://app.example.com")}, sockets.Open)
	if err := engine.Start(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/echo/", engine)
	server := &http.Server{Addr: "127.0.0.1:0", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.ListenAndServe() }()

	// At the end, the sessions first: a poll waits.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = engine.Shutdown(ctx)
	_ = server.Shutdown(ctx)
	// Output:
}

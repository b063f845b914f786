// Package handshake serves WebSocket handshakes without net/http's server, which
// keeps 10 KB of buffers and a goroutine for a connection that it gives away with
// its first request. Everything else is net/http's.
package handshake

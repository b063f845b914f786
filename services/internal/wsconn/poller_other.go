//go:build !linux

package wsconn

// poller is for Linux, on which the product runs. Elsewhere, each connection has
// a goroutine that waits.
type poller struct{}

func newPoller() (*poller, error) { return nil, nil } //nolint:nilnil // there is none

func (*poller) stop()                   {}
func (*poller) watch(*Conn, bool) error { return nil }
func (*poller) forget(*Conn)            {}

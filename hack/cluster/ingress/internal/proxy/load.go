package proxy

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"

	// What a configuration of Render names; each import registers its part.
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Load makes this process serve a configuration, in place of the one before:
// listeners stay open, requests under way end, and streams go on. After an
// error the one before still serves.
func Load(config []byte) error {
	if err := caddy.Load(config, false); err != nil {
		return fmt.Errorf("load the proxy's configuration: %w", err)
	}
	return nil
}

// Stop ends what Load started.
func Stop() error { return caddy.Stop() }

package proxy

import "time"

// The part of Caddy's JSON configuration that is used here. Names and meaning
// are Caddy's (https://caddyserver.com/docs/json).

type caddyConfig struct {
	Admin   admin   `json:"admin"`
	Logging logging `json:"logging"`
	Apps    apps    `json:"apps"`
}

type admin struct {
	Disabled bool        `json:"disabled"`
	Config   adminConfig `json:"config"`
}

type adminConfig struct {
	Persist bool `json:"persist"`
}

type logging struct {
	Logs map[string]logger `json:"logs"`
}

type logger struct {
	Level   string   `json:"level"`
	Exclude []string `json:"exclude"`
}

type apps struct {
	HTTP httpApp `json:"http"`
	TLS  tlsApp  `json:"tls"`
}

type httpApp struct {
	// GracePeriod bounds how long a reload waits for requests under way.
	GracePeriod time.Duration     `json:"grace_period"`
	Servers     map[string]server `json:"servers"`
}

type server struct {
	Listen                []string        `json:"listen"`
	Protocols             []string        `json:"protocols"`
	ReadHeaderTimeout     time.Duration   `json:"read_header_timeout"`
	Routes                []route         `json:"routes"`
	AutomaticHTTPS        automaticHTTPS  `json:"automatic_https"`
	TLSConnectionPolicies []tlsConnection `json:"tls_connection_policies,omitempty"`
}

type automaticHTTPS struct {
	Disable bool `json:"disable"`
}

type tlsConnection struct{}

type route struct {
	Match    []match   `json:"match,omitempty"`
	Handle   []handler `json:"handle"`
	Terminal bool      `json:"terminal"`
}

type match struct {
	Host       []string    `json:"host,omitempty"`
	PathRegexp *pathRegexp `json:"path_regexp,omitempty"`
}

type pathRegexp struct {
	Pattern string `json:"pattern"`
}

// handler is one of reverse_proxy and static_response.
type handler struct {
	Handler string `json:"handler"`

	Upstreams        []upstream     `json:"upstreams,omitempty"`
	Transport        *transport     `json:"transport,omitempty"`
	LoadBalancing    *loadBalancing `json:"load_balancing,omitempty"`
	StreamCloseDelay time.Duration  `json:"stream_close_delay,omitempty"`

	StatusCode int                 `json:"status_code,omitempty"`
	Headers    map[string][]string `json:"headers,omitempty"`
	Body       string              `json:"body,omitempty"`
}

type upstream struct {
	Dial string `json:"dial"`
}

type transport struct {
	Protocol    string        `json:"protocol"`
	DialTimeout time.Duration `json:"dial_timeout"`
	KeepAlive   keepAlive     `json:"keep_alive"`
	Compression bool          `json:"compression"`
}

type keepAlive struct {
	Enabled bool `json:"enabled"`
}

type loadBalancing struct {
	TryDuration time.Duration `json:"try_duration"`
	TryInterval time.Duration `json:"try_interval"`
}

type tlsApp struct {
	Certificates        certificates `json:"certificates"`
	DisableStorageCheck bool         `json:"disable_storage_check"`
	DisableStorageClean bool         `json:"disable_storage_clean"`
	DisableOCSPStapling bool         `json:"disable_ocsp_stapling"`
}

type certificates struct {
	LoadPEM []keyPair `json:"load_pem"`
}

type keyPair struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

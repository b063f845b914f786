// Package web is the HTTP plumbing of the services: a router with request ids,
// logs, metrics and bounds; typed operations that are read strictly, and
// problems (RFC 9457) for every refusal. It knows nothing of any domain.
package web

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/telemetry"
)

// HeaderRequestID carries the request id both ways.
const HeaderRequestID = "X-Request-Id"

// A client's own request id is taken if it is short and plain; it ends in logs.
var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Options are what a router needs.
type Options struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Instance is told in every answer's contract.HeaderInstance.
	Instance string
}

// NewRouter has the middleware that every public port has, in order: request
// id, instance, log and metrics, recovery from panics.
func NewRouter(options Options) chi.Router {
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "marketplane_http_request_duration_seconds",
		Help:    "Time from the request's headers to the end of the answer, by route pattern, method and status.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"route", "method", "status"})
	options.Registry.MustRegister(requests)

	r := chi.NewRouter()
	r.Use(identify(options.Instance), observe(options.Log, requests), recoverPanics(options.Log))
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, newProblem(r.Context(), http.StatusNotFound, "no_such_route", "Nothing is served at this path."))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Allow"] = allowed(r)
		writeProblem(w, newProblem(r.Context(), http.StatusMethodNotAllowed, "method_not_allowed",
			"This path does not take this method; see the Allow header."))
	})
	return r
}

// knownMethods are those that a route here may take.
var knownMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// allowed lists the methods of the request's path; RFC 9110 wants them with a
// 405.
func allowed(r *http.Request) []string {
	var methods []string
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range knownMethods {
		if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
			methods = append(methods, method)
		}
	}
	return []string{strings.Join(methods, ", ")}
}

func identify(instance string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := r.Header.Get(HeaderRequestID)
			if !requestIDPattern.MatchString(id) {
				id = uuid.Must(uuid.NewV7()).String()
			}
			w.Header().Set(HeaderRequestID, id)
			w.Header().Set(contract.HeaderInstance, instance)
			next.ServeHTTP(w, r.WithContext(telemetry.WithRequestID(r.Context(), id)))
		})
	}
}

func observe(log *slog.Logger, requests *prometheus.HistogramVec) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			ww := &observed{WrapResponseWriter: middleware.NewWrapResponseWriter(w, r.ProtoMajor)}
			defer func() {
				status, level := ww.Status(), slog.LevelInfo
				switch {
				case ww.hijacked:
					// Whole crowds come back at once. What serves them counts them.
					status, level = http.StatusSwitchingProtocols, slog.LevelDebug
				case status == 0:
					status = http.StatusOK
				}
				route := chi.RouteContext(r.Context()).RoutePattern()
				if route == "" {
					route = "none" // paths that nobody serves must not become label values
				}
				method := r.Method
				if !slices.Contains(knownMethods, method) {
					method = "other" // clients make up methods, too
				}
				took := time.Since(start)
				requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
				log.LogAttrs(r.Context(), level, "request",
					slog.String("method", method), slog.String("route", route), slog.Int("status", status),
					slog.Int("bytes", ww.BytesWritten()), slog.Float64("duration_ms", float64(took.Microseconds())/1000))
			}()
			next.ServeHTTP(ww, r)
		})
	}
}

// observed is an answer that is looked at.
type observed struct {
	middleware.WrapResponseWriter
	hijacked bool // for another protocol
}

// Hijack implements http.Hijacker.
func (o *observed) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(o.WrapResponseWriter).Hijack()
	o.hijacked = err == nil
	return conn, rw, err //nolint:wrapcheck // of the server
}

func recoverPanics(log *slog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				v := recover()
				if v == nil {
					return
				}
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v) // net/http's own way to cut an answer short
				}
				log.ErrorContext(r.Context(), "panic in a handler", "panic", v, "stack", string(debug.Stack()))
				WriteProblem(w, r, log, fault.From(errors.New("panic in a handler")))
			}()
			next.ServeHTTP(w, r)
		})
	}
}

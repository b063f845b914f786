package web

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// DefaultMaxBody is how many bytes of body an operation takes unless it says
// otherwise.
const DefaultMaxBody = 64 << 10

const (
	bodyReadTimeout = 10 * time.Second
	// handleTimeout bounds an operation, once its body is read. It is above the
	// database's own bound for a statement, and is for what that can't end: a
	// database that does not answer at all.
	handleTimeout = 15 * time.Second
)

// API holds the typed operations of one service.
type API struct {
	huma     huma.API
	log      *slog.Logger
	verifier Verifier
}

// Verifier checks an access token; see identity.Verifier.
type Verifier interface {
	Verify(ctx context.Context, token string) (identity.Principal, error)
}

// NewAPI puts an API on a router. Its OpenAPI document is built from the
// operations' types.
func NewAPI(router chi.Router, title string, log *slog.Logger, verifier Verifier) *API {
	strictCasing()
	config := huma.DefaultConfig(title, "v1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema links in bodies
	config.Transformers = []huma.Transformer{fromLibrary}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
	}
	return &API{huma: humachi.New(router, config), log: log, verifier: verifier}
}

// strictCasing makes the library take members by their exact names. Without it
// two spellings of a name pass, and the one that is used is not the one that
// was checked. The switch is the library's, for the whole process.
var strictCasing = sync.OnceFunc(func() { huma.ValidateStrictCasing = true })

// Operation describes one route.
type Operation struct {
	// ID names the operation in the OpenAPI document, as in "createTask".
	ID      string
	Method  string
	Path    string
	Summary string
	// Status is the status of success; 0 means 200, or 204 without a body.
	Status int
	// Anonymous operations take no access token.
	Anonymous bool
	// MaxBody bounds the body in bytes; 0 means DefaultMaxBody.
	MaxBody int64
}

// Handle adds a typed operation. In and Out are structs with huma's field tags
// (path, query, header, Body). The principal of the request is in the context:
// identity.FromContext. Errors are faults; anything else is an internal error.
func Handle[In, Out any](api *API, op Operation, handler func(context.Context, *In) (*Out, error)) {
	operation := huma.Operation{
		OperationID:     op.ID,
		Method:          op.Method,
		Path:            op.Path,
		Summary:         op.Summary,
		DefaultStatus:   op.Status,
		MaxBodyBytes:    op.MaxBody,
		BodyReadTimeout: bodyReadTimeout,
	}
	if operation.MaxBodyBytes == 0 {
		operation.MaxBodyBytes = DefaultMaxBody
	}
	if !op.Anonymous {
		operation.Security = []map[string][]string{{"bearer": {}}}
		operation.Middlewares = huma.Middlewares{api.authenticate}
	}
	huma.Register(api.huma, operation, func(ctx context.Context, in *In) (*Out, error) {
		bounded, cancel := context.WithTimeout(ctx, handleTimeout)
		defer cancel()
		out, err := handler(bounded, in)
		if err != nil {
			return nil, problemOf(ctx, api.log, err)
		}
		return out, nil
	})
}

// OpenAPI returns the document as YAML.
func (a *API) OpenAPI() ([]byte, error) { return a.huma.OpenAPI().YAML() }

// authenticate runs before the body is read, so that strangers cost little.
func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	principal, err := Authenticate(ctx.Context(), a.verifier, ctx.Header("Authorization"))
	if err != nil {
		r, w := humachi.Unwrap(ctx)
		WriteProblem(w, r, a.log, err)
		return
	}
	next(huma.WithContext(ctx, identity.NewContext(ctx.Context(), principal)))
}

// Authenticate returns the principal of an Authorization header.
func Authenticate(ctx context.Context, verifier Verifier, header string) (identity.Principal, error) {
	scheme, token, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return identity.Principal{}, fault.New(fault.Unauthenticated, "token_missing",
			"Send an access token in the header Authorization: Bearer ….")
	}
	return verifier.Verify(ctx, strings.TrimSpace(token))
}

// NoStore marks answers that carry tokens or personal data (RFC 9111).
func NoStore(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

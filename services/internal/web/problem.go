package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/telemetry"
)

// Problem is the body of every refusal (RFC 9457). Values that the client sent
// are never echoed in it.
type Problem struct {
	Type      string         `json:"type" doc:"Stable URI of this kind of problem."`
	Title     string         `json:"title" doc:"The HTTP status in words."`
	Status    int            `json:"status"`
	Code      string         `json:"code" doc:"Stable, machine-readable code."`
	Detail    string         `json:"detail" doc:"What went wrong, and what to do about it."`
	RequestID string         `json:"request_id,omitempty" doc:"Quote it when you report the problem."`
	Errors    []ProblemError `json:"errors,omitempty" doc:"The inputs that are wrong."`

	retryAfter time.Duration
}

// ProblemError is one input that is wrong.
type ProblemError struct {
	Pointer string `json:"pointer,omitempty" doc:"JSON pointer (RFC 6901) in the body."`
	In      string `json:"in,omitempty" enum:"body,query,path,header" doc:"Where the input stands."`
	Name    string `json:"name,omitempty" doc:"The parameter's name, outside of the body."`
	Detail  string `json:"detail"`
}

// Error makes a Problem an error that huma writes as it is.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders adds Retry-After, in whole seconds, where it is known, and the
// challenge that RFC 9110 asks for with a 401.
func (p *Problem) GetHeaders() http.Header {
	headers := http.Header{}
	if p.retryAfter > 0 {
		headers.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	if p.Status == http.StatusUnauthorized {
		headers.Set("WWW-Authenticate", "Bearer")
	}
	return headers
}

// ContentType is RFC 9457's.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

const problemTypes = "https://marketplane.dev/problems/"

func newProblem(ctx context.Context, status int, code, detail string) *Problem {
	return &Problem{
		Type:      problemTypes + strings.ReplaceAll(code, "_", "-"),
		Title:     http.StatusText(status),
		Status:    status,
		Code:      code,
		Detail:    detail,
		RequestID: telemetry.RequestID(ctx),
	}
}

// statusOf is the one table from kinds of faults to HTTP statuses.
func statusOf(kind fault.Kind) int {
	switch kind {
	case fault.Malformed:
		return http.StatusBadRequest
	case fault.Invalid:
		return http.StatusUnprocessableEntity
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Stale:
		return http.StatusPreconditionFailed
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// problemOf turns a domain's error into a problem, and logs what the client
// must not see.
func problemOf(ctx context.Context, log *slog.Logger, err error) *Problem {
	f := fault.From(err)
	switch f.Kind {
	case fault.Internal:
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			log.DebugContext(ctx, "client went away", "error", err)
			break
		}
		log.ErrorContext(ctx, "request failed", "error", err)
	case fault.Unavailable:
		log.WarnContext(ctx, "request refused for now", "error", err)
	default:
	}
	p := newProblem(ctx, statusOf(f.Kind), f.Code, f.Message)
	p.retryAfter = f.RetryAfter
	if f.Pointer != "" {
		p.Errors = []ProblemError{{In: "body", Pointer: f.Pointer, Detail: f.Message}}
	}
	return p
}

// WriteProblem writes err's problem outside of an operation.
func WriteProblem(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	writeProblem(w, problemOf(r.Context(), log, err))
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone if this fails
}

// fromLibrary rewrites huma's own errors as problems: same status, our codes,
// pointers in place of its paths, and without the values that it echoes.
func fromLibrary(ctx huma.Context, _ string, value any) (any, error) {
	model, ok := value.(*huma.ErrorModel)
	if !ok {
		return value, nil
	}
	code, detail := libraryCode(model)
	p := newProblem(ctx.Context(), model.Status, code, detail)
	for _, e := range model.Errors {
		p.Errors = append(p.Errors, problemError(e))
	}
	return p, nil
}

func libraryCode(model *huma.ErrorModel) (code, detail string) {
	switch model.Status {
	case http.StatusBadRequest:
		return "malformed", "The request could not be read: " + model.Detail + "."
	case http.StatusRequestEntityTooLarge:
		return "too_large", "The body is larger than this operation takes."
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type", "Send the body as application/json."
	case http.StatusUnprocessableEntity:
		return "invalid", "Some inputs are not acceptable; see errors."
	case http.StatusRequestTimeout:
		return "too_slow", "The body did not arrive in time."
	case http.StatusInternalServerError:
		return "internal", "Something went wrong on our side. Try again; if it stays, report the request id."
	default:
		return "refused", http.StatusText(model.Status)
	}
}

// problemError turns a path such as body.items[2].name into /items/2/name.
func problemError(e *huma.ErrorDetail) ProblemError {
	in, rest, _ := strings.Cut(e.Location, ".")
	if in != "body" {
		return ProblemError{In: in, Name: rest, Detail: e.Message}
	}
	rest = strings.NewReplacer("[", ".", "]", "").Replace(rest)
	pointer := ""
	for part := range strings.SplitSeq(rest, ".") {
		if part != "" {
			pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part)
		}
	}
	return ProblemError{In: in, Pointer: pointer, Detail: e.Message}
}

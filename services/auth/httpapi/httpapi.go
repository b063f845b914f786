// Package httpapi serves the auth service over HTTP: it decodes, calls the
// domain, and encodes.
package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/auth"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/web"
)

// Paths that clients and verifiers find the service by.
const (
	pathJWKS     = "/.well-known/jwks.json"
	pathMetadata = "/.well-known/oauth-authorization-server"
)

// Options are what the API needs beside the service.
type Options struct {
	Log      *slog.Logger
	Verifier web.Verifier
	// Issuer is the "iss" of access tokens, under which pathJWKS is reachable.
	Issuer string
	// JWKS returns the public keys' document (RFC 7517).
	JWKS func() []byte
	// TrustedProxies are believed about the addresses of clients.
	TrustedProxies []netip.Prefix
}

// Register puts the service's operations on a router.
func Register(router chi.Router, svc *auth.Service, options Options) *web.API {
	// Answers carry tokens or personal data, except where an operation says otherwise.
	router = router.With(web.NoStore, rememberAddress(options.TrustedProxies))
	api := web.NewAPI(router, "Marketplane auth", options.Log, options.Verifier)
	h := handlers{svc: svc, issuer: options.Issuer, jwks: options.JWKS}

	web.Handle(api, web.Operation{
		ID: "register", Method: http.MethodPost, Path: "/v1/auth/register", Anonymous: true,
		Status: http.StatusCreated, Summary: "Make an account, and log in to it", MaxBody: maxBody,
	}, h.register)
	web.Handle(api, web.Operation{
		ID: "logIn", Method: http.MethodPost, Path: "/v1/auth/login", Anonymous: true,
		Summary: "Start a session with an email and a password", MaxBody: maxBody,
	}, h.logIn)
	web.Handle(api, web.Operation{
		ID: "refresh", Method: http.MethodPost, Path: "/v1/auth/refresh", Anonymous: true,
		Summary: "Exchange a refresh token for new tokens; safe to send again when the answer is lost", MaxBody: maxBody,
	}, h.refresh)
	web.Handle(api, web.Operation{
		ID: "logOut", Method: http.MethodPost, Path: "/v1/auth/logout", Anonymous: true,
		Status: http.StatusNoContent, Summary: "End a refresh token's session", MaxBody: maxBody,
	}, h.logOut)
	web.Handle(api, web.Operation{
		ID: "me", Method: http.MethodGet, Path: "/v1/auth/me", Summary: "Show the account of the access token",
	}, h.me)
	web.Handle(api, web.Operation{
		ID: "jwks", Method: http.MethodGet, Path: pathJWKS, Anonymous: true,
		Summary: "The public keys that access tokens are verified with (RFC 7517)",
	}, h.keys)
	web.Handle(api, web.Operation{
		ID: "metadata", Method: http.MethodGet, Path: pathMetadata, Anonymous: true,
		Summary: "What verifiers need to know (RFC 8414)",
	}, h.metadata)
	return api
}

// maxBody is plenty for the bodies below, in bytes.
const maxBody = 8 << 10

type handlers struct {
	svc    *auth.Service
	issuer string
	jwks   func() []byte
}

type registerInput struct {
	Body struct {
		Email       string `json:"email" maxLength:"300" doc:"An address such as name@example.com; its case does not matter."`
		Password    string `json:"password" minLength:"15" maxLength:"128" doc:"15 to 128 characters of any kind."`
		DisplayName string `json:"display_name" minLength:"1" maxLength:"80" doc:"What others see."`
	}
}

type logInInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"300"`
		Password string `json:"password" maxLength:"1024"`
	}
}

type refreshTokenInput struct {
	Body struct {
		RefreshToken string `json:"refresh_token" maxLength:"200" doc:"The newest refresh token of the session."`
	}
}

type userBody struct {
	ID          uuid.UUID `json:"id"`
	Email       string    `json:"email"`
	DisplayName string    `json:"display_name"`
	CreatedAt   time.Time `json:"created_at"`
}

type tokensBody struct {
	AccessToken  string    `json:"access_token" doc:"A JWT (RFC 9068) for the header Authorization: Bearer …."`
	TokenType    string    `json:"token_type" enum:"Bearer"`
	ExpiresIn    int       `json:"expires_in" doc:"The access token's life, in seconds."`
	RefreshToken string    `json:"refresh_token" doc:"Keep it secret, and replace the one before it."`
	SessionID    uuid.UUID `json:"session_id"`
	UserID       uuid.UUID `json:"user_id"`
}

type registerOutput struct {
	Body struct {
		User userBody `json:"user"`
		tokensBody
	}
}

type tokensOutput struct{ Body tokensBody }

type userOutput struct{ Body userBody }

func bodyOfUser(u auth.User) userBody {
	return userBody{ID: u.ID, Email: u.Email, DisplayName: u.DisplayName, CreatedAt: u.CreatedAt}
}

func bodyOfTokens(t auth.Tokens) tokensBody {
	return tokensBody{
		AccessToken: t.AccessToken, TokenType: "Bearer", ExpiresIn: int(t.ExpiresIn / time.Second),
		RefreshToken: t.RefreshToken, SessionID: t.SessionID, UserID: t.UserID,
	}
}

func (h handlers) register(ctx context.Context, in *registerInput) (*registerOutput, error) {
	user, tokens, err := h.svc.Register(ctx, auth.Registration{
		Email: in.Body.Email, Password: in.Body.Password, DisplayName: in.Body.DisplayName,
		Address: addressOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &registerOutput{}
	out.Body.User, out.Body.tokensBody = bodyOfUser(user), bodyOfTokens(tokens)
	return out, nil
}

func (h handlers) logIn(ctx context.Context, in *logInInput) (*tokensOutput, error) {
	tokens, err := h.svc.LogIn(ctx, in.Body.Email, in.Body.Password, addressOf(ctx))
	if err != nil {
		return nil, err
	}
	return &tokensOutput{Body: bodyOfTokens(tokens)}, nil
}

func (h handlers) refresh(ctx context.Context, in *refreshTokenInput) (*tokensOutput, error) {
	tokens, err := h.svc.Refresh(ctx, in.Body.RefreshToken)
	if err != nil {
		return nil, err
	}
	return &tokensOutput{Body: bodyOfTokens(tokens)}, nil
}

func (h handlers) logOut(ctx context.Context, in *refreshTokenInput) (*struct{}, error) {
	return nil, h.svc.LogOut(ctx, in.Body.RefreshToken)
}

func (h handlers) me(ctx context.Context, _ *struct{}) (*userOutput, error) {
	user, err := h.svc.Me(ctx, identity.FromContext(ctx))
	if err != nil {
		return nil, err
	}
	return &userOutput{Body: bodyOfUser(user)}, nil
}

type documentOutput struct {
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

func cacheable() string {
	return fmt.Sprintf("public, max-age=%d", int(auth.JWKSMaxAge/time.Second))
}

func (h handlers) keys(context.Context, *struct{}) (*documentOutput, error) {
	return &documentOutput{
		ContentType: "application/jwk-set+json", CacheControl: cacheable(), Body: h.jwks(),
	}, nil
}

type metadataBody struct {
	Issuer  string `json:"issuer"`
	JWKSURI string `json:"jwks_uri"`
	// RFC 8414 requires the first, and takes an absent second to mean two grants
	// that are not there. The log-in of this service is its own protocol, not an
	// OAuth 2.0 grant, so there is no endpoint to name.
	ResponseTypes []string `json:"response_types_supported"`
	GrantTypes    []string `json:"grant_types_supported"`
}

type metadataOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         metadataBody
}

func (h handlers) metadata(context.Context, *struct{}) (*metadataOutput, error) {
	return &metadataOutput{
		CacheControl: cacheable(),
		Body: metadataBody{
			Issuer: h.issuer, JWKSURI: strings.TrimSuffix(h.issuer, "/") + pathJWKS,
			ResponseTypes: []string{}, GrantTypes: []string{},
		},
	}, nil
}

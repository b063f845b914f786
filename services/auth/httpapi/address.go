package httpapi

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/marketplane/marketplane/services/internal/clientaddr"
)

type addressKey struct{}

// rememberAddress puts the client's address into the context.
func rememberAddress(trusted []netip.Prefix) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			address := clientaddr.Of(r, trusted)
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), addressKey{}, address)))
		})
	}
}

func addressOf(ctx context.Context) string {
	address, _ := ctx.Value(addressKey{}).(string)
	return address
}

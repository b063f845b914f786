package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
)

func TestClassifyTellsWhatALaterTryMayCure(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err           error
		wantTemporary bool
	}{
		"shut down by its administrator": {&pgconn.PgError{Code: "57P01"}, true},
		"statement timeout":              {&pgconn.PgError{Code: "57014"}, true},
		"too many connections":           {&pgconn.PgError{Code: "53300"}, true},
		"password changed":               {&pgconn.PgError{Code: "28P01"}, true},
		"deadlock":                       {&pgconn.PgError{Code: "40P01"}, true},
		"a standby":                      {&pgconn.PgError{Code: "25006"}, true},
		"lock timeout":                   {&pgconn.PgError{Code: "55P03"}, true},
		"connection broke half-way":      {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"connection refused":             {&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		"deadline":                       {context.DeadlineExceeded, true},
		"duplicate":                      {&pgconn.PgError{Code: "23505"}, false},
		"bad value":                      {&pgconn.PgError{Code: "22P05"}, false},
		"missing table":                  {&pgconn.PgError{Code: "42P01"}, false},
		"client went away":               {context.Canceled, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := postgres.Classify(fmt.Errorf("do something: %w", tt.err))
			if temporary := fault.From(got).Kind == fault.Unavailable; temporary != tt.wantTemporary {
				t.Errorf("temporary: %t, want %t", temporary, tt.wantTemporary)
			}
			if !errors.Is(got, tt.err) {
				t.Errorf("the cause is lost in %v", got)
			}
		})
	}
	if postgres.Classify(nil) != nil {
		t.Error("no error became one")
	}
}

package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
)

var (
	errEmailTaken = fault.New(fault.Conflict, "email_taken",
		"There is an account with this email. Log in, or use another email.").At("/email")
	errCredentials = fault.New(fault.Unauthenticated, "invalid_credentials",
		"The email or the password is wrong.")
	errTooMany = fault.New(fault.TooMany, "too_many_attempts",
		"Too many attempts failed. Wait, and try again.")
	errRefreshToken = fault.New(fault.Unauthenticated, "refresh_token_invalid",
		"The refresh token is not valid. Log in again.")
	errAccountGone = fault.New(fault.Unauthenticated, "account_gone",
		"The account does not exist any more.")
)

// refusals are what a refresh is answered with when it gives no tokens.
var refusals = map[outcome]*fault.Error{
	reused: fault.New(fault.Unauthenticated, "refresh_token_reused",
		"An old refresh token was used, which someone may have stolen. The session has ended. Log in again."),
	ended:   fault.New(fault.Unauthenticated, "session_ended", "The session has ended. Log in again."),
	expired: fault.New(fault.Unauthenticated, "session_expired", "The session has expired. Log in again."),
}

// Registration is a request for an account.
type Registration struct {
	Email       string
	Password    string
	DisplayName string
	// Address is the client's, for bounding how many emails it can ask about.
	Address string
}

// Register makes an account and logs it in. Faults: email_invalid,
// password_length, display_name_invalid, email_taken, too_many_attempts, and the
// hasher's.
func (s *Service) Register(ctx context.Context, r Registration) (User, Tokens, error) {
	user, tokens, err := s.register(ctx, r)
	s.Meter.Registered(resultOf(err))
	return user, tokens, err
}

func (s *Service) register(ctx context.Context, r Registration) (User, Tokens, error) {
	email, err := parseEmail(r.Email)
	if err != nil {
		return User{}, Tokens{}, err
	}
	password, err := parsePassword(r.Password)
	if err != nil {
		return User{}, Tokens{}, err
	}
	name, err := parseDisplayName(r.DisplayName)
	if err != nil {
		return User{}, Tokens{}, err
	}
	// The answer tells who has an account; an address gets few such answers, and
	// its failed log-ins count with them. Charged first, as in logIn.
	if wait, ok := s.Addresses.Take(r.Address); !ok {
		return User{}, Tokens{}, errTooMany.After(wait)
	}
	user, tokens, err := s.createAccount(ctx, email, password, name)
	if !errors.Is(err, errEmailTaken) {
		s.Addresses.Return(r.Address)
	}
	return user, tokens, err
}

func (s *Service) createAccount(ctx context.Context, email, password, name string) (User, Tokens, error) {
	hash, err := s.Hasher.Hash(ctx, password)
	if err != nil {
		return User{}, Tokens{}, fmt.Errorf("hash the password: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return User{}, Tokens{}, fmt.Errorf("make a user id: %w", err)
	}
	now := s.now()
	user := User{ID: id, Email: email, DisplayName: name, CreatedAt: now}
	session, err := newSession(id, now)
	if err != nil {
		return User{}, Tokens{}, err
	}
	// Signed first: an account that its owner never hears of helps nobody.
	tokens, err := s.tokensOf(&session)
	if err != nil {
		return User{}, Tokens{}, err
	}
	err = s.Store.CreateAccount(ctx, user, hash, session, events.Event{
		Subject: id,
		Data:    events.UserRegistered{UserID: id, DisplayName: name},
	})
	if errors.Is(err, ErrEmailTaken) {
		return User{}, Tokens{}, errEmailTaken
	}
	if err != nil {
		return User{}, Tokens{}, fmt.Errorf("create account: %w", err)
	}
	s.Wake()
	return user, tokens, nil
}

// LogIn starts a session. address is the client's, for bounding failures.
// Faults: invalid_credentials, too_many_attempts, and the hasher's.
func (s *Service) LogIn(ctx context.Context, email, password, address string) (Tokens, error) {
	tokens, err := s.logIn(ctx, email, password, address)
	s.Meter.LoggedIn(resultOf(err))
	return tokens, err
}

func (s *Service) logIn(ctx context.Context, email, password, address string) (Tokens, error) {
	// Attempts are charged before the password is looked at and returned
	// afterwards, so that many at once can't all slip under the bound.
	account := accountKey(email)
	if wait, ok := s.Accounts.Take(account); !ok {
		return Tokens{}, errTooMany.After(wait)
	}
	if wait, ok := s.Addresses.Take(address); !ok {
		s.Accounts.Return(account)
		return Tokens{}, errTooMany.After(wait)
	}
	credentials, err := s.check(ctx, email, password)
	if !errors.Is(err, errCredentials) {
		s.Accounts.Return(account)
		s.Addresses.Return(address)
	}
	if err != nil {
		return Tokens{}, err
	}
	session, err := newSession(credentials.UserID, s.now())
	if err != nil {
		return Tokens{}, err
	}
	tokens, err := s.tokensOf(&session)
	if err != nil {
		return Tokens{}, err
	}
	err = s.Store.CreateSession(ctx, session)
	if errors.Is(err, ErrNotFound) { // deleted meanwhile
		return Tokens{}, errCredentials
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("create session: %w", err)
	}
	return tokens, nil
}

// check takes the same time whether the email or the password is wrong.
func (s *Service) check(ctx context.Context, email, password string) (Credentials, error) {
	var credentials Credentials
	if email, err := parseEmail(email); err == nil { // else it is nobody's
		credentials, err = s.Store.Credentials(ctx, email)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Credentials{}, fmt.Errorf("find account: %w", err)
		}
	}
	ok, err := s.Hasher.Verify(ctx, normalPassword(password), credentials.PasswordHash)
	if err != nil {
		return Credentials{}, fmt.Errorf("verify password: %w", err)
	}
	if !ok {
		return Credentials{}, errCredentials
	}
	return credentials, nil
}

// Refresh takes a refresh token and returns new tokens; see Session.present for
// when the refresh token among them is a new one. Faults:
// refresh_token_invalid, refresh_token_reused, session_ended, session_expired.
func (s *Service) Refresh(ctx context.Context, token string) (Tokens, error) {
	tokens, result, err := s.refresh(ctx, token)
	if err != nil {
		result = outcome(resultOf(err))
	}
	s.Meter.Refreshed(string(result))
	return tokens, err
}

func (s *Service) refresh(ctx context.Context, token string) (Tokens, outcome, error) {
	presented, ok := parseRefreshToken(token)
	if !ok {
		return Tokens{}, "", errRefreshToken
	}
	var (
		session Session
		result  outcome
		told    []events.Event
	)
	key := s.RefreshKey()
	err := s.Store.ChangeSession(ctx, presented.session, func(current *Session) []events.Event {
		result, told = "", nil
		if presented.authentic(key, current) {
			result, told = current.present(presented.counter, s.now())
		}
		session = *current
		return told
	})
	if errors.Is(err, ErrNotFound) || (err == nil && result == "") {
		return Tokens{}, "", errRefreshToken
	}
	if err != nil {
		return Tokens{}, "", fmt.Errorf("refresh session %s: %w", presented.session, err)
	}
	s.announce(told)
	if refusal, refused := refusals[result]; refused {
		return Tokens{}, "", refusal
	}
	tokens, err := s.tokensOf(&session)
	return tokens, result, err
}

// LogOut ends the session of a refresh token, however old the token is. Tokens
// that are nobody's are not an error (RFC 7009, section 2.2): what the caller
// wants is so already.
func (s *Service) LogOut(ctx context.Context, token string) error {
	presented, ok := parseRefreshToken(token)
	if !ok {
		return nil
	}
	var told []events.Event
	key := s.RefreshKey()
	err := s.Store.ChangeSession(ctx, presented.session, func(current *Session) []events.Event {
		told = nil
		if presented.authentic(key, current) {
			told = current.end(ReasonLoggedOut, s.now())
		}
		return told
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("end session %s: %w", presented.session, err)
	}
	s.announce(told)
	return nil
}

// Me returns the principal's account. Fault: account_gone.
func (s *Service) Me(ctx context.Context, principal identity.Principal) (User, error) {
	user, err := s.Store.User(ctx, principal.UserID)
	if errors.Is(err, ErrNotFound) {
		return User{}, errAccountGone
	}
	if err != nil {
		return User{}, fmt.Errorf("find user %s: %w", principal.UserID, err)
	}
	return user, nil
}

// tokensOf makes the tokens of a session's present state.
func (s *Service) tokensOf(session *Session) (Tokens, error) {
	access, expires, err := s.AccessTokens.Sign(session.UserID, session.ID)
	if err != nil {
		return Tokens{}, fmt.Errorf("sign a token of session %s: %w", session.ID, err)
	}
	return Tokens{
		AccessToken:  access,
		ExpiresIn:    max(0, expires.Sub(s.Now()).Truncate(time.Second)),
		RefreshToken: formatRefreshToken(s.RefreshKey(), session),
		SessionID:    session.ID,
		UserID:       session.UserID,
	}, nil
}

// announce follows a commit that ended a session.
func (s *Service) announce(told []events.Event) {
	if len(told) == 0 {
		return
	}
	s.Wake()
	for _, event := range told {
		if end, ok := event.Data.(events.SessionEnded); ok {
			s.Meter.SessionsEnded(end.Reason, 1)
		}
	}
}

func resultOf(err error) string {
	if err == nil {
		return "ok"
	}
	return fault.From(err).Code
}

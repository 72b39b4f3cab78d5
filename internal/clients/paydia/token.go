package paydia

import (
	"context"
	"encoding/json"
	"net/http"

	"terbayar/internal/clients"
)

// login requests a B2B access token: POST /access-token/b2b.
func (c *Client) login(ctx context.Context) (clients.Grant, clients.Answer) {
	timestamp := c.timestamp()
	signature, err := SignToken(c.key, c.options.ClientID, timestamp)
	if err != nil {
		return clients.Grant{}, c.sender.Unsent(opToken, "the private key cannot sign")
	}
	answer, content := c.sender.Send(ctx, opToken, clients.Request{
		Method: http.MethodPost, Path: "/access-token/b2b",
		Header: http.Header{
			"Accept":       {"application/json"},
			"Content-Type": {"application/json"},
			"X-TIMESTAMP":  {timestamp},
			"X-CLIENT-KEY": {c.options.ClientID},
			"X-SIGNATURE":  {signature},
		},
		Body: []byte(`{"grantType":"client_credentials"}`),
	})
	// Paydia's documentation of this answer is not available, so the fields that other SNAP
	// providers send are required, except the responseCode.
	var granted struct {
		ResponseCode clients.Number `json:"responseCode"`
		AccessToken  clients.Text   `json:"accessToken"`
		ExpiresIn    clients.Number `json:"expiresIn"`
	}
	if answer.HTTPStatus/100 == 2 && json.Unmarshal(content, &granted) == nil && granted.AccessToken != "" &&
		(!granted.ResponseCode.Present() || granted.ResponseCode.Digits() == "200"+serviceToken+"00") {
		return clients.NewGrant(granted.AccessToken, granted.ExpiresIn, c.sender.Now()), answer
	}
	c.read(&answer, opToken, serviceToken, content, &granted)
	if answer.Err == nil {
		c.sender.SetCode(&answer, opToken, answer.Code, "no token in the answer")
	}
	return clients.Grant{}, answer
}

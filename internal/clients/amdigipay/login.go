package amdigipay

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"terbayar/internal/clients"
	"terbayar/internal/retrypolicy"
)

// login requests an access token: POST /login.
func (c *Client) login(ctx context.Context) (clients.Grant, clients.Answer) {
	header := http.Header{"Accept": {"application/json"}, "Content-Type": {"application/json"}}
	body, err := clients.EncodeJSON(map[string]string{
		"username": c.options.Username, "password": c.options.Password.Reveal(),
	})
	if err != nil {
		return clients.Grant{}, c.sender.Unsent(opLogin, "the body cannot be encoded")
	}
	if c.options.LoginEncoding == "form" {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		body = []byte(url.Values{
			"username": {c.options.Username}, "password": {c.options.Password.Reveal()},
		}.Encode())
	}
	answer, content := c.sender.Send(ctx, opLogin, clients.Request{
		Method: http.MethodPost, Path: "/login", Header: header, Body: body,
	})
	var grant clients.Grant
	if content != nil && answer.HTTPStatus/100 == 2 {
		grant = c.grant(&answer, content)
	} else if answer.Err == nil {
		c.sender.SetCode(&answer, opLogin, answer.Code, "no token in the answer")
	}
	return grant, answer
}

// grant reads both forms of a login answer: the token in data, as AM documents it, or at the
// top level, as JWT packages for Laravel write it.
func (c *Client) grant(a *clients.Answer, content []byte) clients.Grant {
	var e envelope
	err := json.Unmarshal(content, &e)
	switch {
	case err != nil:
		c.sender.Unreadable(a, opLogin, "the answer is not a JSON object")
		return clients.Grant{}
	case e.Error == clients.True:
		c.sender.SetCode(a, opLogin, retrypolicy.CodeRefused, "no token in the answer")
		return clients.Grant{}
	}
	for _, place := range [][]byte{e.Data, content} {
		var t struct {
			AccessToken clients.Text   `json:"access_token"`
			ExpiresIn   clients.Number `json:"expires_in"` // a number in AM's documentation
		}
		if json.Unmarshal(place, &t) == nil && t.AccessToken != "" {
			return clients.NewGrant(t.AccessToken, t.ExpiresIn, c.sender.Now())
		}
	}
	c.sender.Unreadable(a, opLogin, "success without an access_token")
	return clients.Grant{}
}

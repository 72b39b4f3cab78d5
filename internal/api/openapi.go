package api

import (
	_ "embed"
	"net/http"
	"sync"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// openAPI describes the API. Tests compare it with the handlers and with the types of the answers
// and payments.
//
//go:embed openapi.json
var openAPI []byte

func getOpenAPI(w *response, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // an error means that the client has gone
}

// swagger is Swagger UI. All its files are in this program.
var swagger = sync.OnceValue(func() http.Handler {
	return v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "Terbayar", SwaggerJSON: "/openapi.json", BasePath: "/docs/",
		SettingsUI: map[string]string{"defaultModelsExpandDepth": "1", "persistAuthorization": "false"},
	})
})

// docsPage answers the page /docs and its files. The page cannot load anything from elsewhere, or
// send a key there.
func docsPage(w *response, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "+
		"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	swagger().ServeHTTP(w, r)
}

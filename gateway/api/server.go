package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// configuration is what clients learn without a key.
type configuration struct {
	Version                string              `json:"version"`
	OIDC                   oidc                `json:"oidc"`
	LinkedAccountsEnabled  bool                `json:"linkedAccountsEnabled"`
	Announcements          map[string]struct{} `json:"announcements"`
	ProxyTemplateURL       string              `json:"proxyTemplateUrl"`
	ProxyToolboxURL        string              `json:"proxyToolboxUrl"`
	DefaultSnapshot        string              `json:"defaultSnapshot"`
	DashboardURL           string              `json:"dashboardUrl"`
	MaxAutoArchiveInterval float64             `json:"maxAutoArchiveInterval"`
	MaintenanceMode        bool                `json:"maintananceMode"`
	Environment            string              `json:"environment"`
	wire.SSHConfiguration
}

type oidc struct {
	Issuer   string `json:"issuer"`
	ClientID string `json:"clientId"`
	Audience string `json:"audience"`
}

type health struct {
	Status string `json:"status"`
}

func (a *API) registerServer() {
	handle(a, "GET", "/config", "What clients need to know of this server", a.config)
	handle(a, "GET", "/health", "Whether the server answers", a.live)
	handle(a, "GET", "/health/ready", "Whether sandboxes can be made", a.ready)
	a.route("GET", "/openapi.json", http.HandlerFunc(a.document))
	a.route("GET", "/toolbox-openapi.json", serveDocument(a.toolboxDocument()))
	a.route("GET", "/docs", docs())
}

func (a *API) config(ctx context.Context, _ *struct{}) (configuration, error) {
	base := baseURL(ctx)
	return configuration{
		SSHConfiguration: a.sshConfiguration(base),
		Version:          contractVersion, Announcements: map[string]struct{}{},
		ProxyTemplateURL: a.PreviewURLs.Template(base), ProxyToolboxURL: base + "/toolbox", DashboardURL: base,
		OIDC: oidc{Issuer: a.Issuer}, DefaultSnapshot: a.DefaultSnapshot, MaxAutoArchiveInterval: wire.MaxAutoArchive.Minutes(),
		Environment: "atoll",
	}, nil
}

func (a *API) live(context.Context, *struct{}) (health, error) { return health{"ok"}, nil }

func (a *API) ready(context.Context, *struct{}) (health, error) {
	if err := a.Ready(); err != nil {
		return health{}, engine.Errorf(engine.KindUnavailable, "not ready: %s", engine.AsError(err).Message)
	}
	return health{"ok"}, nil
}

func (a *API) document(w http.ResponseWriter, r *http.Request) {
	doc, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		wire.WriteError(w, r, a.logged(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	http.ServeContent(w, r, "", time.Time{}, bytesReader(doc))
}

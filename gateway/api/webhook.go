package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type webhookStatus struct {
	OrganizationID    string  `json:"organizationId"`
	SvixApplicationID *string `json:"svixApplicationId" doc:"always null: this server delivers by itself"`
	LastError         *string `json:"lastError"`
	RetryCount        int     `json:"retryCount" doc:"deliveries that failed and are tried again"`
	CreatedAt         string  `json:"createdAt"`
	UpdatedAt         string  `json:"updatedAt"`
}

func fromWebhookStatus(s engine.WebhookStatus) webhookStatus {
	d := webhookStatus{
		OrganizationID: s.OrganizationID, RetryCount: s.Retries, CreatedAt: wire.Time(s.CreatedAt), UpdatedAt: wire.Time(s.UpdatedAt),
	}
	if s.LastError != "" {
		d.LastError = &s.LastError
	}
	return d
}

func (a *API) registerWebhooks() {
	const org = "/webhooks/organizations/{organizationId}"
	handle(a, "GET", org+"/initialization-status", "Whether an organization uses webhooks", a.webhookStatus)
	handleCreated(a, "POST", org+"/initialize", "Begin to use webhooks", a.initializeWebhooks)
	handleEmpty(a, "POST", org+"/refresh-endpoints", "Take changes that another server made", http.StatusNoContent, a.refreshWebhooks)
	handle(a, "GET", org+"/endpoints", "List webhook endpoints", a.endpoints)
	handleCreated(a, "POST", org+"/endpoints", "Send events to a URL; the answer has the signing secret", a.createEndpoint)
	handle(a, "GET", org+"/endpoints/{endpointId}", "One webhook endpoint", a.endpoint)
	handle(a, "PATCH", org+"/endpoints/{endpointId}", "Change a webhook endpoint", a.updateEndpoint)
	handleEmpty(a, "DELETE", org+"/endpoints/{endpointId}", "Delete a webhook endpoint and what waits for it", http.StatusNoContent, a.deleteEndpoint)
	handle(a, "POST", org+"/endpoints/{endpointId}/rotate-secret", "Make a new signing secret", a.rotateSecret)
	handle(a, "GET", org+"/messages", "List webhook messages, newest first", a.messages)
	handle(a, "GET", org+"/messages/{messageId}/attempts", "The tries of a webhook message", a.attempts)
	handleEmpty(a, "POST", org+"/messages/{messageId}/resend", "Try dead deliveries again", http.StatusAccepted, a.resend)

	const admin = "/admin" + org
	handle(a, "POST", admin+"/send", "Send a message to an organization's endpoints", a.sendWebhook)
	handle(a, "GET", admin+"/messages/{messageId}/attempts", "The tries of a webhook message", a.attempts)
	handleCreated(a, "POST", admin+"/initialize", "Begin to use webhooks", a.initializeWebhooks)
	handle(a, "GET", "/admin/webhooks/status", "Whether webhooks are delivered", a.webhooksEnabled)
}

func (a *API) webhookStatus(ctx context.Context, in *OrganizationPath) (webhookStatus, error) {
	org, err := ownOrganization(ctx, in.Organization)
	if err != nil {
		return webhookStatus{}, err
	}
	s, err := a.Services.Webhooks.Status(ctx, org)
	return fromWebhookStatus(s), err
}

func (a *API) initializeWebhooks(ctx context.Context, in *OrganizationPath) (webhookStatus, error) {
	org, err := ownedOrganization(ctx, in.Organization)
	if err != nil {
		return webhookStatus{}, err
	}
	s, err := a.Services.Webhooks.Initialize(ctx, org)
	return fromWebhookStatus(s), err
}

func (a *API) refreshWebhooks(ctx context.Context, in *OrganizationPath) error {
	org, err := ownedOrganization(ctx, in.Organization)
	if err != nil {
		return err
	}
	return a.Services.Messages.Refresh(ctx, org)
}

func (a *API) endpoints(ctx context.Context, in *OrganizationPath) ([]wire.Endpoint, error) {
	org, err := ownedOrganization(ctx, in.Organization)
	if err != nil {
		return nil, err
	}
	list, err := a.Services.Webhooks.Endpoints(ctx, org)
	out := make([]wire.Endpoint, len(list))
	for i, e := range list {
		out[i] = wire.FromEndpoint(e)
	}
	return out, err
}

type createEndpointInput struct {
	ID   string `path:"organizationId"`
	Body wire.CreateEndpoint
}

func (a *API) createEndpoint(ctx context.Context, in *createEndpointInput) (wire.Endpoint, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return wire.Endpoint{}, err
	}
	e, err := a.Services.Webhooks.CreateEndpoint(ctx, engine.Endpoint{
		OrganizationID: org, URL: in.Body.URL, Description: in.Body.Description, Events: in.Body.Events,
	})
	return wire.FromEndpoint(e), err
}

type endpointInput struct {
	ID       string `path:"organizationId"`
	Endpoint string `path:"endpointId"`
}

func (a *API) endpoint(ctx context.Context, in *endpointInput) (wire.Endpoint, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return wire.Endpoint{}, err
	}
	e, err := a.Services.Webhooks.Endpoint(ctx, org, in.Endpoint)
	return wire.FromEndpoint(e), err
}

type updateEndpointInput struct {
	ID       string `path:"organizationId"`
	Endpoint string `path:"endpointId"`
	Body     wire.UpdateEndpoint
}

func (a *API) updateEndpoint(ctx context.Context, in *updateEndpointInput) (wire.Endpoint, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return wire.Endpoint{}, err
	}
	e, err := a.Services.Webhooks.UpdateEndpoint(ctx, org, in.Endpoint, engine.UpdateEndpoint(in.Body))
	return wire.FromEndpoint(e), err
}

func (a *API) deleteEndpoint(ctx context.Context, in *endpointInput) error {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return err
	}
	return a.Services.Webhooks.DeleteEndpoint(ctx, org, in.Endpoint)
}

func (a *API) rotateSecret(ctx context.Context, in *endpointInput) (wire.Endpoint, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return wire.Endpoint{}, err
	}
	e, err := a.Services.Webhooks.RotateSecret(ctx, org, in.Endpoint)
	return wire.FromEndpoint(e), err
}

type messagesInput struct {
	ID     string `path:"organizationId"`
	Before string `query:"before" doc:"id of the oldest message seen"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"100"`
}

func (a *API) messages(ctx context.Context, in *messagesInput) ([]wire.Message, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.Services.Messages.List(ctx, org, in.Before, in.Limit)
	out := make([]wire.Message, len(list))
	for i, m := range list {
		out[i] = wire.FromMessage(m)
	}
	return out, err
}

type messageInput struct {
	ID      string `path:"organizationId"`
	Message string `path:"messageId"`
}

type attempt struct {
	ID         string  `json:"id"`
	MessageID  string  `json:"messageId"`
	EndpointID string  `json:"endpointId"`
	Timestamp  string  `json:"timestamp"`
	TookMs     float64 `json:"tookMs"`
	StatusCode int     `json:"statusCode" doc:"0: there was no answer"`
	Error      string  `json:"error,omitempty"`
}

func (a *API) attempts(ctx context.Context, in *messageInput) ([]attempt, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.Services.Messages.Attempts(ctx, org, in.Message)
	out := make([]attempt, len(list))
	for i, t := range list {
		out[i] = attempt{
			ID: t.ID, MessageID: t.MessageID, EndpointID: t.EndpointID, Timestamp: wire.Time(t.At),
			TookMs: float64(t.Took) / float64(time.Millisecond), StatusCode: t.Status, Error: t.Error,
		}
	}
	return out, err
}

func (a *API) resend(ctx context.Context, in *messageInput) error {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return err
	}
	return a.Services.Messages.Resend(ctx, org, in.Message)
}

type sendInput struct {
	ID   string `path:"organizationId"`
	Body struct {
		EventType string         `json:"eventType"`
		Payload   map[string]any `json:"payload"`
		EventID   string         `json:"eventId,omitempty" doc:"one that was sent already is refused"`
	}
}

func (a *API) sendWebhook(ctx context.Context, in *sendInput) (wire.Message, error) {
	org, err := ownedOrganization(ctx, in.ID)
	if err != nil {
		return wire.Message{}, err
	}
	body, err := json.Marshal(in.Body.Payload)
	if err != nil {
		return wire.Message{}, err
	}
	m, err := a.Services.Messages.Send(ctx, org, in.Body.EventType, in.Body.EventID, body)
	return wire.FromMessage(m), err
}

type webhooksState struct {
	Enabled bool `json:"enabled"`
}

func (a *API) webhooksEnabled(context.Context, *struct{}) (webhooksState, error) {
	return webhooksState{true}, nil
}

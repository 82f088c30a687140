package api

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

func (a *API) registerSecrets() {
	handleCreated(a, "POST", "/secret", "Keep a secret", a.createSecret)
	handle(a, "GET", "/secret", "List all secrets", a.secrets)
	handle(a, "GET", "/secret/paginated", "List secrets, page by page", a.secretPage)
	handle(a, "GET", "/secret/{secretId}", "One secret, without its value", a.secret)
	handle(a, "PATCH", "/secret/{secretId}", "Change a secret", a.updateSecret)
	handleEmpty(a, "DELETE", "/secret/{secretId}", "Delete a secret; sandboxes lose its variable", http.StatusNoContent, a.deleteSecret)
	handle(a, "PUT", "/sandbox/{sandboxIdOrName}/secrets", "Replace the secrets of a sandbox", a.attachSecrets)
}

type createSecretInput struct{ Body wire.CreateSecret }

func (a *API) createSecret(ctx context.Context, in *createSecretInput) (wire.Secret, error) {
	s, err := a.Services.Secrets.Create(ctx, in.Body.Request(auth.Organization(ctx)))
	return wire.FromSecret(s), err
}

// secrets walks all pages, which are bounded by the number of secrets that an
// organization may have.
func (a *API) secrets(ctx context.Context, _ *struct{}) ([]wire.Secret, error) {
	out := []wire.Secret{}
	q := engine.SecretQuery{OrganizationID: auth.Organization(ctx), Limit: 200}
	for {
		p, err := a.Services.Secrets.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range p.Items {
			out = append(out, wire.FromSecret(s))
		}
		if p.Next == "" {
			return out, nil
		}
		q.Cursor = p.Next
	}
}

type secretsInput struct {
	Cursor string `query:"cursor"`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"100"`
	Name   string `query:"name" doc:"part of the name"`
	Sort   string `query:"sort" enum:"name,createdAt,updatedAt" default:"createdAt"`
	Order  string `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) secretPage(ctx context.Context, in *secretsInput) (wire.SecretPage, error) {
	p, err := a.Services.Secrets.List(ctx, engine.SecretQuery{
		OrganizationID: auth.Organization(ctx), Name: in.Name, Sort: in.Sort, Ascending: in.Order == "asc",
		Limit: in.Limit, Cursor: in.Cursor,
	})
	return wire.FromSecretPage(p), err
}

type secretInput struct {
	ID string `path:"secretId" maxLength:"255" doc:"id or name"`
}

func (in secretInput) ref(ctx context.Context) engine.SecretRef {
	return engine.SecretRef{OrganizationID: auth.Organization(ctx), IDOrName: in.ID}
}

func (a *API) secret(ctx context.Context, in *secretInput) (wire.Secret, error) {
	s, err := a.Services.Secrets.Secret(ctx, in.ref(ctx))
	return wire.FromSecret(s), err
}

type updateSecretInput struct {
	ID   string `path:"secretId" maxLength:"255" doc:"id or name"`
	Body wire.UpdateSecret
}

func (a *API) updateSecret(ctx context.Context, in *updateSecretInput) (wire.Secret, error) {
	s, err := a.Services.Secrets.Update(ctx, secretInput{in.ID}.ref(ctx), engine.UpdateSecret(in.Body))
	return wire.FromSecret(s), err
}

func (a *API) deleteSecret(ctx context.Context, in *secretInput) error {
	return a.Services.Secrets.Delete(ctx, in.ref(ctx))
}

type attachInput struct {
	SandboxPath
	Body struct {
		Secrets []map[string]string `json:"secrets" doc:"objects of variable and name of a secret; [] detaches all"`
	}
}

func (a *API) attachSecrets(ctx context.Context, in *attachInput) (wire.Sandbox, error) {
	wanted, err := wire.Attachments(in.Body.Secrets)
	if err != nil {
		return wire.Sandbox{}, err
	}
	s, err := a.Services.Secrets.Attach(ctx, ref(ctx, in.Sandbox), wanted)
	return answer(ctx, s, err)
}

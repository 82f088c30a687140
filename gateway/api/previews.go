package api

import (
	"context"
	"crypto/subtle"
	"net/http"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// PreviewURLs makes URLs of previews and ends what is open.
type PreviewURLs interface {
	// URL is where a port is seen; label is a sandbox's id or a link's token.
	URL(base string, port int, label string) string
	// Template is the same with {{PORT}} and {{sandboxId}} in their places.
	Template(base string) string
	// Cut ends the connections that a token let in.
	Cut(token string)
	// CutPublic ends those that are open because a sandbox was public.
	CutPublic(sandbox string)
}

type previewURL struct {
	SandboxID string `json:"sandboxId"`
	URL       string `json:"url"`
	Token     string `json:"token" doc:"for the header X-Daytona-Preview-Token; opens all ports"`
}

type signedPreviewURL struct {
	SandboxID string `json:"sandboxId"`
	Port      int    `json:"port"`
	Token     string `json:"token"`
	URL       string `json:"url"`
}

type previewWarning struct {
	Enabled bool `json:"enabled"`
}

func (a *API) registerPreviews() {
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", "Where a port is seen, and the token for it", a.previewURL)
	handle(a, "GET", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url", "A URL that opens a port for some time", a.signedURL)
	handleEmpty(a, "POST", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire",
		"Revoke such a URL and end its connections", http.StatusOK, a.expireURL)
	handle(a, "GET", "/sandbox/{sandboxId}/signing-key", "The key that URLs of files are signed with", a.signingKey)
	handle(a, "POST", "/sandbox/{sandboxId}/signing-key/rotate", "Change the signing key and the preview token", a.rotateKey)
	handle(a, "GET", "/preview/{sandboxId}/public", "Whether previews need no token", a.previewPublic)
	handle(a, "GET", "/preview/{sandboxId}/preview-warning", "Whether visitors are warned first", a.previewWarning)
	handle(a, "GET", "/preview/{sandboxId}/validate/{authToken}", "Whether a preview token is good", a.previewValid)
	handle(a, "GET", "/preview/{sandboxId}/signing-key", "The signing key, for proxies", a.previewSigningKey)
	handle(a, "GET", "/preview/{sandboxId}/access", "Whether the key's organization owns the sandbox", a.previewAccess)
	handle(a, "GET", "/preview/{signedPreviewToken}/{port}/sandbox-id", "The sandbox that a signed URL leads to", a.previewSandbox)
}

// PreviewPort names a port of a sandbox.
type PreviewPort struct {
	SandboxPath
	Port int `path:"port" minimum:"1" maximum:"65535"`
}

func (a *API) previewURL(ctx context.Context, in *PreviewPort) (previewURL, error) {
	access, err := a.Previews.Access(ctx, ref(ctx, in.Sandbox))
	if err != nil {
		return previewURL{}, err
	}
	id := access.Sandbox.ID
	return previewURL{SandboxID: id, URL: a.PreviewURLs.URL(baseURL(ctx), in.Port, id), Token: access.Token}, nil
}

type signedInput struct {
	PreviewPort
	Seconds int `query:"expiresInSeconds" minimum:"1" maximum:"86400" default:"60"`
}

func (a *API) signedURL(ctx context.Context, in *signedInput) (signedPreviewURL, error) {
	token, link, err := a.Previews.CreateLink(ctx, ref(ctx, in.Sandbox), in.Port, time.Duration(in.Seconds)*time.Second)
	if err != nil {
		return signedPreviewURL{}, err
	}
	return signedPreviewURL{
		SandboxID: link.SandboxID, Port: link.Port, Token: token, URL: a.PreviewURLs.URL(baseURL(ctx), link.Port, token),
	}, nil
}

type expireInput struct {
	PreviewPort
	Token string `path:"token" maxLength:"64"`
}

func (a *API) expireURL(ctx context.Context, in *expireInput) error {
	err := a.Previews.ExpireLink(ctx, ref(ctx, in.Sandbox), in.Port, in.Token)
	if err == nil {
		a.PreviewURLs.Cut(in.Token)
	}
	return err
}

func (a *API) signingKey(ctx context.Context, in *SandboxID) (string, error) {
	access, err := a.Previews.Access(ctx, ref(ctx, in.ID))
	return access.SigningKey, err
}

// rotateKey also ends what the old secrets let in.
func (a *API) rotateKey(ctx context.Context, in *SandboxID) (string, error) {
	old, err := a.Previews.Access(ctx, ref(ctx, in.ID))
	if err != nil {
		return "", err
	}
	access, err := a.Previews.Rotate(ctx, ref(ctx, in.ID))
	if err != nil {
		return "", err
	}
	a.PreviewURLs.Cut(old.Token)
	return access.SigningKey, nil
}

// previewPublic says false of a sandbox that is not there, because anybody may
// ask.
func (a *API) previewPublic(ctx context.Context, in *SandboxID) (bool, error) {
	access, err := a.Previews.AccessByID(ctx, in.ID)
	if engine.KindOf(err) == engine.KindNotFound {
		return false, nil
	}
	return access.Sandbox.Public, err
}

type warningInput struct {
	SandboxID
	Port int `query:"port" minimum:"0" maximum:"65535"`
}

// previewWarning: who hosts a server knows whose sandboxes are on it.
func (a *API) previewWarning(context.Context, *warningInput) (previewWarning, error) {
	return previewWarning{}, nil
}

type validateInput struct {
	SandboxID
	Token string `path:"authToken" maxLength:"255"`
}

func (a *API) previewValid(ctx context.Context, in *validateInput) (bool, error) {
	access, err := a.Previews.AccessByID(ctx, in.ID)
	if engine.KindOf(err) == engine.KindNotFound {
		return false, nil
	}
	return err == nil && subtle.ConstantTimeCompare([]byte(access.Token), []byte(in.Token)) == 1, err
}

// previewSigningKey is for an administrator's proxy, which serves every
// organization.
func (a *API) previewSigningKey(ctx context.Context, in *SandboxID) (string, error) {
	access, err := a.Previews.AccessByID(ctx, in.ID)
	return access.SigningKey, err
}

func (a *API) previewAccess(ctx context.Context, in *SandboxID) (bool, error) {
	_, err := a.Previews.Access(ctx, ref(ctx, in.ID))
	return err == nil, err
}

type linkInput struct {
	Token string `path:"signedPreviewToken" maxLength:"64"`
	Port  int    `path:"port" minimum:"1" maximum:"65535"`
}

func (a *API) previewSandbox(ctx context.Context, in *linkInput) (string, error) {
	link, err := a.Previews.Link(ctx, in.Token)
	if err != nil {
		return "", err
	}
	if link.Port != in.Port {
		return "", engine.Errorf(engine.KindNotFound, "this preview link is for another port")
	}
	return link.SandboxID, nil
}

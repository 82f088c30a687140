package api

import (
	"context"

	"github.com/atoll-sh/atoll/engine"
)

// volumeDTO is the contract's shape; none exist yet.
type volumeDTO struct {
	ID             string  `json:"id"`
	Name           string  `json:"name"`
	OrganizationID string  `json:"organizationId"`
	State          string  `json:"state"`
	CreatedAt      string  `json:"createdAt"`
	UpdatedAt      string  `json:"updatedAt"`
	LastUsedAt     *string `json:"lastUsedAt"`
	ErrorReason    *string `json:"errorReason"`
}

type volumeID struct {
	ID string `path:"volumeId"`
}

type volumeName struct {
	Name string `path:"name"`
}

// The reads are true while volumes cannot be made: there are none. Clients
// need the 404 to go on to create one, which then says that it is not built.
func (a *API) registerVolumes() {
	handle(a, "GET", "/volumes", "List volumes", func(context.Context, *struct{}) ([]volumeDTO, error) {
		return []volumeDTO{}, nil
	})
	handle(a, "GET", "/volumes/{volumeId}", "One volume", func(_ context.Context, in *volumeID) (volumeDTO, error) {
		return volumeDTO{}, noVolume(in.ID)
	})
	handle(a, "GET", "/volumes/by-name/{name}", "One volume, by name", func(_ context.Context, in *volumeName) (volumeDTO, error) {
		return volumeDTO{}, noVolume(in.Name)
	})
}

func noVolume(name string) error {
	return engine.Errorf(engine.KindNotFound, "Volume %s not found", name)
}

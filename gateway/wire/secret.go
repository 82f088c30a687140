package wire

import (
	"github.com/atoll-sh/atoll/engine"
)

// Secret is a secret without its value.
type Secret struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Hosts       []string `json:"hosts" doc:"where the value may be sent; empty: nowhere"`
	Placeholder string   `json:"placeholder" doc:"what stands for the value in a sandbox"`
	CreatedAt   string   `json:"createdAt"`
	UpdatedAt   string   `json:"updatedAt"`
}

// SecretPage is one page of secrets.
type SecretPage struct {
	Items      []Secret `json:"items"`
	Total      int      `json:"total"`
	NextCursor *string  `json:"nextCursor"`
}

// FromSecret makes the wire's shape of a secret.
func FromSecret(s engine.Secret) Secret {
	hosts := s.Hosts
	if hosts == nil {
		hosts = []string{}
	}
	return Secret{
		ID: s.ID, Name: s.Name, Description: s.Description, Hosts: hosts, Placeholder: s.Placeholder,
		CreatedAt: Time(s.CreatedAt), UpdatedAt: Time(s.UpdatedAt),
	}
}

// Secret returns the engine's secret that d was made of.
func (d Secret) Secret() engine.Secret {
	return engine.Secret{
		ID: d.ID, Name: d.Name, Description: d.Description, Hosts: d.Hosts, Placeholder: d.Placeholder,
		CreatedAt: ParseTime(d.CreatedAt), UpdatedAt: ParseTime(d.UpdatedAt),
	}
}

// FromSecretPage makes the wire's shape of a page.
func FromSecretPage(p engine.SecretPage) SecretPage {
	page := SecretPage{Items: []Secret{}, Total: p.Total, NextCursor: filled(p.Next)}
	for _, s := range p.Items {
		page.Items = append(page.Items, FromSecret(s))
	}
	return page
}

// CreateSecret is the body that keeps a secret.
type CreateSecret struct {
	Name        string   `json:"name"`
	Value       string   `json:"value"`
	Description string   `json:"description,omitempty"`
	Hosts       []string `json:"hosts,omitempty" doc:"names that the value may be sent to, as api.example.com or *.example.com"`
}

// Request returns the engine's request.
func (c CreateSecret) Request(organization string) engine.CreateSecret {
	return engine.CreateSecret{
		OrganizationID: organization, Name: c.Name, Value: c.Value, Description: c.Description, Hosts: c.Hosts,
	}
}

// UpdateSecret is the body that changes a secret. Absent fields stay.
type UpdateSecret struct {
	Value       *string   `json:"value,omitempty"`
	Description *string   `json:"description,omitempty"`
	Hosts       *[]string `json:"hosts,omitempty"`
}

// Attachments turns the contract's list of objects into one map.
func Attachments(list []map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for _, m := range list {
		for variable, name := range m {
			if _, twice := out[variable]; twice {
				return nil, engine.Errorf(engine.KindInvalid, "secrets: %q is there twice", variable)
			}
			out[variable] = name
		}
	}
	return out, nil
}

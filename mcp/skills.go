package mcp

import (
	"context"
	"encoding/json"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/skills"
)

// The skills extension (SEP-2640): skills are resources that a client can list
// with their digests, and whose directories it can read. mcp-go does not know
// its methods, so they are answered before it.
const (
	skillsExtension = "io.modelcontextprotocol/skills"
	skillScheme     = "skill://"
	markdown        = "text/markdown"
	directory       = "inode/directory"
)

// skillEntry is one skill as the extension lists it.
type skillEntry struct {
	URI         string          `json:"uri"`
	Frontmatter map[string]any  `json:"frontmatter"`
	Resources   []skillResource `json:"resources"`
}

type skillResource struct {
	URI    string `json:"uri"`
	Digest string `json:"digest"`
	Size   int    `json:"size"`
}

// addSkills serves the skills as resources and remembers their entries.
func (s *Server) addSkills() error {
	all, err := skills.All()
	if err != nil {
		return err
	}
	for _, skill := range all {
		base := skillScheme + skill.Name + "/"
		entry := skillEntry{URI: base + skills.Main, Frontmatter: skill.Frontmatter}
		for _, f := range skill.Files {
			uri := base + f.Path
			entry.Resources = append(entry.Resources, skillResource{uri, f.Digest(), len(f.Data)})
			name, description := skill.Name, skill.Description
			if f.Path != skills.Main {
				name, description = skill.Name+"/"+f.Path, "A file of the skill "+skill.Name
			}
			s.inner.AddResource(
				mcpgo.NewResource(uri, name, mcpgo.WithResourceDescription(description), mcpgo.WithMIMEType(markdown)),
				readText(uri, string(f.Data)))
		}
		s.skills = append(s.skills, entry)
	}
	return nil
}

func readText(uri, text string) server.ResourceHandlerFunc {
	return func(context.Context, mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
		return []mcpgo.ResourceContents{mcpgo.TextResourceContents{URI: uri, MIMEType: markdown, Text: text}}, nil
	}
}

// extension answers a request of the extension. It returns nil for everything
// else, which is mcp-go's.
func (s *Server) extension(method string, body []byte) mcpgo.JSONRPCMessage {
	switch method {
	case "skills/list", "skills/get", "resources/directory/read":
	default:
		return nil // bodies may be large and are not read once more
	}
	var m struct {
		ID     any `json:"id"`
		Params struct {
			URI  string      `json:"uri"`
			Meta *mcpgo.Meta `json:"_meta"`
		} `json:"params"`
	}
	if len(s.skills) == 0 || json.Unmarshal(body, &m) != nil || m.ID == nil {
		return nil
	}
	var result map[string]any
	switch method {
	case "skills/list":
		result = map[string]any{"skills": s.skills}
	case "skills/get":
		for _, e := range s.skills {
			if e.URI == m.Params.URI {
				result = map[string]any{"skill": e}
			}
		}
	case "resources/directory/read":
		if list := s.skillDirectory(m.Params.URI); list != nil {
			result = map[string]any{"resources": list}
		}
	}
	if result == nil {
		return mcpgo.NewJSONRPCError(mcpgo.NewRequestId(m.ID), mcpgo.INVALID_PARAMS,
			"nothing here is called "+m.Params.URI+"; skills/list names the skills", map[string]any{"uri": m.Params.URI})
	}
	if mcpgo.IsModernProtocol(m.Params.Meta.ProtocolVersion()) {
		result["resultType"], result["ttlMs"], result["cacheScope"] = "complete", cacheMillis, mcpgo.CacheScopePrivate
	}
	return mcpgo.JSONRPCResponse{JSONRPC: mcpgo.JSONRPC_VERSION, ID: mcpgo.NewRequestId(m.ID), Result: result}
}

// skillDirectory lists what lies directly below a URI, nil when nothing does.
func (s *Server) skillDirectory(uri string) (list []map[string]any) {
	prefix := strings.TrimSuffix(uri, "/") + "/"
	seen := map[string]bool{}
	for _, e := range s.skills {
		for _, r := range e.Resources {
			rest, ok := strings.CutPrefix(r.URI, prefix)
			name, _, deeper := strings.Cut(rest, "/")
			if !ok || seen[name] {
				continue
			}
			seen[name] = true
			mime := markdown
			if deeper {
				mime = directory
			}
			list = append(list, map[string]any{"uri": prefix + name, "name": name, "mimeType": mime})
		}
	}
	return list
}

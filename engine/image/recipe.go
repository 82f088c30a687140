package image

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/atoll-sh/atoll/engine"
)

// recipe is all that decides what a built image holds, except for the versions
// that the distribution's mirror has on the day.
type recipe struct {
	Distribution distribution
	Variant      string   // of mmdebstrap: which packages come besides
	Packages     []string // to install beside those
	Script       string   // shell, run as root with the new root's path in $1
	Config       ocispec.ImageConfig
	Base         digest.Digest `json:",omitempty"` // of the image that this goes on top of; empty: none

	ref  string   // the image's name
	base []string // directories of Base's layers, top first
}

//go:embed default.sh
var defaultScript string // constant

// defaultRecipe is the image that sandboxes have unless told otherwise: what a
// coding agent expects of a computer.
func defaultRecipe(d distribution) recipe {
	return recipe{
		ref:          DefaultRef,
		Distribution: d,
		Variant:      "minbase",
		Packages: []string{
			"bash", "coreutils", "ca-certificates", "tzdata",
			"python3", "python3-pip", "python3-venv", "python3-dev",
			"nodejs", "npm", "node-typescript",
			"python3-pylsp",
			"git", "openssh-client", "rsync", "build-essential", "pkg-config",
			"curl", "wget", "jq", "unzip", "zip", "xz-utils", "bzip2", "zstd",
			"sudo", "procps", "psmisc", "less", "nano", "file",
			"iproute2", "iputils-ping", "netbase", "ripgrep",
		},
		Script: defaultScript,
		Config: ocispec.ImageConfig{
			User:       "daytona",
			WorkingDir: "/home/daytona",
			Env: []string{
				"PATH=/home/daytona/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"LANG=C.UTF-8",
			},
			Cmd:    []string{"bash"},
			Labels: map[string]string{"org.opencontainers.image.title": "atoll default"},
		},
	}
}

// key names the recipe's result in caches.
func (r recipe) key() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain strings
	}
	sum := sha256.Sum256(text)
	return r.Distribution.Suite + "-" + hex.EncodeToString(sum[:8])
}

// DefaultSnapshots are the snapshots that every server has, without ids.
func DefaultSnapshots() []engine.Snapshot {
	sizes := []struct {
		name              string
		image             string
		cpu               float64
		memoryGiB, diskGB int64
	}{
		{"atoll-small", DefaultRef, 1, 1, 3},
		{"atoll-medium", DefaultRef, 2, 4, 8},
		{"atoll-large", DefaultRef, 4, 8, 10},
		{"atoll-desktop", DesktopRef, 2, 4, 10},
	}
	config := defaultRecipe(distribution{}).Config
	var all []engine.Snapshot
	for _, z := range sizes {
		all = append(all, engine.Snapshot{
			OrganizationID: engine.DefaultOrganization,
			Name:           z.name,
			General:        true,
			Image:          z.image,
			User:           config.User,
			WorkDir:        config.WorkingDir,
			Resources:      engine.Resources{CPU: z.cpu, MemoryMiB: z.memoryGiB << 10, DiskMiB: z.diskGB << 10},
		})
	}
	return slices.Clip(all)
}

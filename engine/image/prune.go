package image

import (
	"context"
	"fmt"
)

// Prune drops contents that their tags have moved away from, except those whose
// digest is in keep, and returns how many.
func (s *Store) Prune(ctx context.Context, keep map[string]bool) (int, error) {
	all, err := s.client.ImageService().List(s.context(ctx))
	if err != nil {
		return 0, fmt.Errorf("list images: %w", err)
	}
	named := map[string]bool{} // digests that have a name besides the pin
	for _, i := range all {
		if i.Labels[labelPinOf] == "" {
			named[i.Target.Digest.String()] = true
		}
	}
	dropped := 0
	for _, i := range all {
		digest := i.Target.Digest.String()
		if named[digest] || keep[digest] {
			continue
		}
		if err := s.Remove(ctx, i.Name); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

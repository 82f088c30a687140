package runner

import (
	"context"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/image"
)

// dropping in Runner.layers says that an image goes away.
const dropping = -1

// useImage keeps an image's layers while an instance of it is being made. The
// caller calls done.
func (r *Runner) useImage(ref string) (done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.layers[ref] == dropping {
		return nil, engine.Errorf(engine.KindUnavailable, "image %q is being removed", ref).WithHint("try again in a moment")
	}
	r.layers[ref]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.layers[ref]--; r.layers[ref] == 0 {
			delete(r.layers, ref)
		}
	}, nil
}

// DropImage implements engine.Runner. Core knows of no sandbox that needs the
// image; what this host holds is looked at once more, because an instance
// whose layers go away is lost. Waiting members that nobody wants go first.
func (r *Runner) DropImage(ctx context.Context, img engine.Image) error {
	if r.pool.wants(img.Ref) {
		return nil
	}
	for in := r.pool.unwanted(img.Ref); in != nil; in = r.pool.unwanted(img.Ref) {
		r.undo(ctx, in)
	}
	if !r.claimImage(img) {
		return nil
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.layers, img.Ref)
	}()
	return r.cfg.Images.Remove(ctx, image.Pin(img))
}

// claimImage marks an image that nothing stands on as going away.
func (r *Runner) claimImage(img engine.Image) bool {
	pin := image.Pin(img)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.layers[img.Ref] != 0 {
		return false
	}
	for _, in := range r.instances {
		in.mu.Lock()
		has, asked := in.rec.Image, in.rec.Launch.Image
		in.mu.Unlock()
		if has == pin || asked == img.Ref {
			return false
		}
	}
	r.layers[img.Ref] = dropping
	return true
}

// wants tells whether members of an image are kept.
func (p *pool) wants(ref string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, n := range p.want {
		if k.Image == ref && n > 0 {
			return true
		}
	}
	return false
}

// unwanted takes a waiting member of an image out.
func (p *pool) unwanted(ref string) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.recent {
		if k.Image == ref {
			delete(p.recent, k)
		}
	}
	for k, list := range p.ready {
		if n := len(list); k.Image == ref && n > 0 {
			p.ready[k] = list[: n-1 : n-1]
			return list[n-1]
		}
	}
	return nil
}

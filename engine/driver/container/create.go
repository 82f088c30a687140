package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/atoll-sh/atoll/engine/driver"
)

// The labels of our containers. Those of nerdctl make its ps show a name.
const (
	labelServer  = "atoll.server"
	labelSandbox = "atoll.sandbox"
	labelHandle  = "atoll.handle"
	labelName    = "nerdctl/name"
	labelSpace   = "nerdctl/namespace"
)

// Create makes the container's record in containerd. When there is one already
// that does not run, its specification is replaced, so that a changed Spec
// takes effect at the next start.
func (d *Driver) Create(ctx context.Context, spec driver.Spec) (driver.Handle, error) {
	if err := validate(spec); err != nil {
		return driver.Handle{}, err
	}
	d.pacer.keep(d.ctx, d.wg.Go) // the start comes next
	in := d.instance(spec.ID)
	in.change.Lock()
	defer in.change.Unlock()
	d.jobs.flush()

	ctx, cancel := d.firm(ctx)
	defer cancel()
	since := time.Now()
	data := handleData{ControlDir: spec.ControlDir, UIDBase: spec.UIDBase}
	h, err := d.handle(spec.ID, data)
	if err != nil {
		return driver.Handle{}, err
	}
	box, err := d.container(spec, h)
	if err != nil {
		return driver.Handle{}, err
	}
	if err := d.prepare(spec); err != nil {
		return driver.Handle{}, err
	}
	if err := d.put(ctx, in, box); err != nil {
		err = translate(err, "create container of instance %s", spec.ID)
		if _, known := d.boxes.Get(context.WithoutCancel(ctx), spec.ID); errdefs.IsNotFound(known) {
			err = errors.Join(err, os.RemoveAll(d.dir(spec.ID)))
			d.forget(spec.ID)
		}
		return driver.Handle{}, err
	}
	d.stage(spec.ID, "record", since)
	return h, nil
}

// put creates the record or, for an instance that does not run, replaces it.
func (d *Driver) put(ctx context.Context, in *instance, box containers.Container) error {
	_, err := d.boxes.Create(ctx, box)
	if !errdefs.IsAlreadyExists(err) {
		return err
	}
	if old, err := d.boxes.Get(ctx, box.ID); err == nil && old.Labels[labelServer] != d.cfg.ServerID {
		return fmt.Errorf("container %s belongs to another server: %w", box.ID, errdefs.ErrAlreadyExists)
	}
	if in.running() != nil {
		return nil
	}
	_, err = d.boxes.Update(ctx, box, "spec", "labels")
	return err
}

// prepare makes the instance's state directory, and hands the control
// directory to root inside, so that the toolbox can make its socket there.
func (d *Driver) prepare(spec driver.Spec) error {
	if err := os.MkdirAll(d.dir(spec.ID), 0o700); err != nil {
		return fmt.Errorf("make state directory of %s: %w", spec.ID, err)
	}
	if err := makeTail(d.logPath(spec.ID)); err != nil {
		return err
	}
	if err := os.Chown(spec.ControlDir, int(spec.UIDBase), int(spec.UIDBase)); err != nil {
		return fmt.Errorf("hand over the control directory of %s: %w", spec.ID, err)
	}
	return nil
}

// container is the record of an instance. It names no snapshot: the root file
// system is the caller's.
func (d *Driver) container(spec driver.Spec, h driver.Handle) (containers.Container, error) {
	built, err := d.template.build(spec)
	if err != nil {
		return containers.Container{}, err
	}
	doc, err := encodeDocument(built)
	if err != nil {
		return containers.Container{}, err
	}
	opts, err := d.runtimeOptions(spec.UIDBase)
	if err != nil {
		return containers.Container{}, fmt.Errorf("encode runtime options: %w", err)
	}
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	d.addLabels(labels, spec.ID, spec.Sandbox, spec.Hostname)
	labels[labelHandle] = string(h.Data)
	return containers.Container{
		ID:      spec.ID,
		Image:   spec.Image,
		Labels:  labels,
		Spec:    doc,
		Runtime: containers.RuntimeInfo{Name: runtimeName, Options: opts},
	}, nil
}

func (d *Driver) addLabels(labels map[string]string, id, sandbox, hostname string) {
	labels[labelServer] = d.cfg.ServerID
	labels[labelSandbox] = sandbox
	labels[labelSpace] = d.cfg.Namespace
	labels[labelName] = hostname
	if hostname == "" {
		labels[labelName] = id
	}
}

// rawSpec is an encoded specification under the type that containerd expects.
type rawSpec struct{ value []byte }

func (rawSpec) GetTypeUrl() string { return specTypeURL }
func (r rawSpec) GetValue() []byte { return r.value }

const specTypeURL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

func encodeDocument(doc *document) (typeurl.Any, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode specification: %w", err)
	}
	return rawSpec{b}, nil
}

// change edits the stored specification and labels of an instance, for its
// next start.
func (d *Driver) change(ctx context.Context, id string, edit func(*document, map[string]string)) error {
	ctx, cancel := d.call(ctx)
	defer cancel()
	box, err := d.boxes.Get(ctx, id)
	if err != nil {
		return err
	}
	doc := &document{Linux: &linuxPart{}}
	if err := json.Unmarshal(box.Spec.GetValue(), doc); err != nil {
		return fmt.Errorf("decode specification of %s: %w", id, err)
	}
	if box.Labels == nil {
		box.Labels = map[string]string{}
	}
	edit(doc, box.Labels)
	if box.Spec, err = encodeDocument(doc); err != nil {
		return err
	}
	_, err = d.boxes.Update(ctx, box, "spec", "labels")
	return err
}

var _ typeurl.Any = rawSpec{}

// Package container runs sandboxes as containers: a containerd task with runc
// or crun, in a user namespace of its own, whose process 1 is the toolbox.
//
// containerd keeps the container's specification and starts the runtime; all
// that must be fast or must work while containerd is down goes straight to the
// kernel instead. Limits and pause write cgroup files, signals and exits use
// pidfds, the toolbox is reached through its socket.
//
// An instance is known to containerd under its own id, in the namespace of
// Config, with the label atoll.server naming the server that owns it.
package container

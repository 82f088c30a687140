// Package storage keeps the writable disks of sandboxes. A pool is a file
// system with reflinks; every disk is one sparse ext4 image in it, so that the
// image's size is a hard limit, statfs inside is right, and a fork is one
// FICLONE, whatever the disk holds. Disks hold the upper and work directories
// of an overlay, with ids as they are inside the sandbox; MountRoot shifts them
// to the host's ids while mounting, so that a fork needs no chown.
//
//	<home>/pool.img          the pool, XFS in a sparse file (absent when <home> itself has reflinks)
//	<home>/pool.lock         held by the process that has the pool open
//	<home>/pool/templates/   <bytes>.img, freshly formatted
//	<home>/pool/disks/       <id>/disk.img and its mount point <id>/mnt
//	<home>/pool/ready/       <bytes>-<serial>/, mounted and waiting for an id
//	<home>/pool/saved/       <id>.img
//	<home>/pool/tmp/         whatever is not finished; emptied by Open
//
// Everything is built in tmp and renamed into place, and whether a disk is
// mounted is asked of the kernel, so a process killed at any point leaves
// nothing that Open cannot sort out. Loop devices detach themselves with their
// last user.
package storage

// Package enforce lets the kernel decide which programs the processes of a
// sandbox may start and which files they may read and write, by LSM hooks.
//
// An Enforcer attaches its programs once for the whole host; Set gives rules to
// a control group, and nothing is judged for processes outside of those. A
// refused call fails with EPERM, whatever the user inside, and becomes an event
// with the rule's name. What cannot be judged is refused. Programs, maps and
// links are pinned: they go on judging when this process is gone, and the next
// Open adopts them.
//
// Rules are about paths as the sandbox's mount namespace has them, after all
// symbolic links, and hold for every way to open a file: io_uring, 32-bit calls
// and descriptors under /proc included. The processes must not be able to
// mount: the container driver's system call filter sees to that. Files below
// another name than the one a rule speaks of are not what the rule is about, so
// nothing may be moved or linked to where a list refuses less, and a directory
// with something refused below it only to where the same is. Copies are new files: a list
// that denies programs by name is for accidents, one that allows them holds
// when the places it allows cannot be written. What an allowed interpreter runs
// is not told apart.
//
// Writing is about regular files and about names. Devices, pipes and sockets
// that exist may be opened; reading is about regular files alone. Descriptors
// that were open before the rules stay as they are.
package enforce

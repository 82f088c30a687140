// Package activity tells what the processes of sandboxes do, as the kernel sees
// it: programs started and ended, files opened for writing, made, renamed and
// removed, connections, and attempts to gain privileges.
//
// A Recorder loads the programs and attaches them for the whole host. Add names
// a control group as a sandbox's; nothing is told of processes outside of those.
// Watch names its file systems. What a sandbox does is in one stream of events
// for all, which Read returns.
//
// Nothing is lost in silence. A sandbox that does more than its budget, or a
// reader that is too slow, costs events; they are counted for each sandbox, and
// an event of KindLost stands in the stream for them. While no Recorder is open
// nothing is seen at all, because the programs live as long as it does: when a
// sandbox with processes is added, an event of KindGap says so.
//
// The programs use typed tracepoints, which work where BPF trampolines are
// refused, from Linux 6.1 on. Files are told by fanotify groups, one for each
// file system of a sandbox, from Linux 5.17 on. Neither depends on the system
// call that a process used, nor slows down system calls: any tracepoint of
// system calls would slow down all of the host. A change of a file is known
// with the number of its process alone; who that is, is asked of the kernel or,
// when it has ended, of what the exit program wrote down.
//
// An event of a file comes up to 50 ms late, behind the events of processes of
// that time: after the start of its process, and possibly after its end.
package activity

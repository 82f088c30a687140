// Package activity tells what the processes of sandboxes do, as the kernel sees
// it: programs started and ended, files opened for writing, made, renamed and
// removed, connections, and attempts to gain privileges.
//
// A Recorder loads the programs and attaches them for the whole host. Add names
// a control group as a sandbox's; nothing is told of processes outside of those.
// What a sandbox does is in one stream of events for all, which Read returns.
//
// Nothing is lost in silence. A sandbox that does more than its budget, or a
// reader that is too slow, costs events; they are counted for each sandbox, and
// an event of KindLost stands in the stream for them. While no Recorder is open
// nothing is seen at all, because the programs live as long as it does: when a
// sandbox with processes is added, an event of KindGap says so.
//
// The programs use typed tracepoints and the ends of system calls, which work
// where BPF trampolines are refused, from Linux 6.1 on. They do not see what is done by io_uring
// or by 32-bit calls: a sandbox must not have these, and the container driver's
// system call filter gives it neither. Paths of calls other than a successful
// open are read after the call, from memory that another thread may have changed
// in between; such events say Claimed.
package activity

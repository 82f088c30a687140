// Package refused answers the system calls that a sandbox's filter refuses, and
// tells of them.
//
// The filter hands such a call to its listener: the kernel lets the caller sleep
// until the one who holds the listener's descriptor has answered. A Keeper holds
// it. It lives in the sandbox's shim, which outlives the server and ends with
// the sandbox, so that nobody ever waits for a server, and no process inside
// comes near the descriptor. A Keeper has one answer, EPERM. When it dies the
// kernel answers ENOSYS, and containerd ends the sandbox.
//
// What is refused costs the caller time, and nobody else: who asks too often
// gets the answer later. Calls that a process repeats are counted. What cannot
// be told while no server listens waits in a queue, and is counted beyond that.
package refused

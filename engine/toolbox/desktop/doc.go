// Package desktop is a sandbox's screen: it runs the programs that make one,
// looks at it, moves its pointer, types on its keyboard, films it and talks to
// what programs show there as assistive technology does. All of it happens in
// a process of its own, as the sandbox's user, which the toolbox starts when a
// desktop is wanted: PID 1 stays small, and a fault here does not end it.
package desktop

// Package object brings BPF objects into the running kernel: it finds the types
// that their programs look at, relocates and loads the programs one by one, and
// says in plain words what a machine lacks for that.
package object

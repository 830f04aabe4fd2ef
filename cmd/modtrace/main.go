// Command modtrace says why a kernel module will not unload, or why that takes
// so long.
package main

import "os"

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

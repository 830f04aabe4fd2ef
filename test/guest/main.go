// SPDX-License-Identifier: MIT

// Guest is the init of the lab's virtual machines. It mounts what a tracer
// needs, runs one command with its streams carried to the host, and powers the
// machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the init of a lab machine; nothing to do elsewhere")
		os.Exit(2)
	}
	if err := run(); err != nil {
		// The console is the one place left where anybody looks.
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	// A machine that cannot power off must not look like one that still works.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	time.Sleep(time.Hour)
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	data, err := os.ReadFile(wire.JobPath)
	if err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	var job wire.Job
	if err := json.Unmarshal(data, &job); err != nil {
		return fmt.Errorf("decoding the job: %w", err)
	}
	if err := setUp(&job); err != nil {
		return err
	}
	return serve(&job)
}

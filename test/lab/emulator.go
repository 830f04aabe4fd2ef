// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"path/filepath"
)

// emulatorSuite is where the emulator comes from, whatever this machine runs.
// QEMU before 8.1 translates code while another processor patches it, and now
// and then keeps the breakpoint that the patching goes through: guests with more
// than one processor die of it when tracepoints are switched on and off.
const emulatorSuite = "trixie"

// NeedEmulator makes sure of what booting a machine of an architecture takes.
func (l *Lab) NeedEmulator(ctx context.Context, arch string) error {
	_, err := l.emulator(ctx, arch)
	return err
}

// emulator returns the beginning of the command line that runs QEMU for an
// architecture out of the cache, with the libraries it was built with.
func (l *Lab) emulator(ctx context.Context, arch string) ([]string, error) {
	p, err := platformOf(arch)
	if err != nil {
		return nil, err
	}
	loader, triplet := "usr/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"
	if hostArch == "arm64" {
		loader, triplet = "usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"
	}
	dir, err := l.Tree(ctx, TreeSpec{Suite: emulatorSuite, Arch: hostArch, Packages: []string{p.pkg}})
	if err != nil {
		return nil, fmt.Errorf("getting the emulator: %w", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	libs := in("usr/lib/"+triplet) + ":" + in("usr/lib/"+triplet+"/pulseaudio")
	command := []string{in(loader), "--library-path", libs, in("usr/bin/" + p.program)}
	for _, firmware := range []string{"usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"} {
		command = append(command, "-L", in(firmware))
	}
	return command, nil
}

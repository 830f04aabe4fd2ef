// SPDX-License-Identifier: MIT

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// parseModulesDep reads which modules each module needs, all by their paths
// below the module directory.
func parseModulesDep(text string) map[string][]string {
	deps := map[string][]string{}
	for _, line := range strings.Split(text, "\n") {
		path, needs, ok := strings.Cut(line, ":")
		if ok {
			deps[path] = strings.Fields(needs)
		}
	}
	return deps
}

// ModuleName returns the name by which the kernel knows the module in a file.
func ModuleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// AddModules adds modules that come with the kernel, by name, with all that they
// need; modprobe finds them in the guest.
func (l *Lab) AddModules(ctx context.Context, a *Initrd, k *Kernel, names ...string) error {
	data, err := os.ReadFile(filepath.Join(k.ModuleDir(), "modules.dep"))
	if err != nil {
		return err
	}
	deps := parseModulesDep(string(data))
	byName := map[string]string{}
	for path := range deps {
		byName[ModuleName(path)] = path
	}
	for _, name := range names {
		path, ok := byName[strings.ReplaceAll(name, "-", "_")]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		for _, p := range append([]string{path}, deps[path]...) {
			if err := addModule(ctx, a, k, p); err != nil {
				return err
			}
		}
	}
	return l.indexModules(ctx, a, k)
}

// addModule adds a module decompressed: a guest is small, and its memory fast.
func addModule(ctx context.Context, a *Initrd, k *Kernel, path string) error {
	to := moduleDir(k) + "/" + strings.TrimSuffix(strings.TrimSuffix(path, ".xz"), ".zst")
	if a.Has(to) {
		return nil
	}
	data, err := readModule(ctx, filepath.Join(k.ModuleDir(), path))
	if err != nil {
		return fmt.Errorf("reading module %s: %w", path, err)
	}
	a.AddFile(to, 0o644, data)
	return nil
}

func moduleDir(k *Kernel) string { return "usr/lib/modules/" + k.Release }

func readModule(ctx context.Context, file string) ([]byte, error) {
	switch filepath.Ext(file) {
	case ".xz":
		return decompress(ctx, "xz", file)
	case ".zst":
		return decompress(ctx, "zstd", file)
	}
	return os.ReadFile(file)
}

func decompress(ctx context.Context, program, file string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-dc", file)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, errs.String())
	}
	return out.Bytes(), nil
}

// indexModules writes what modprobe looks names up in, for the modules that the
// image has and no others.
func (l *Lab) indexModules(ctx context.Context, a *Initrd, k *Kernel) error {
	tmp, err := os.MkdirTemp(l.dir, ".depmod-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	prefix := moduleDir(k) + "/"
	base := filepath.Join(tmp, "lib", "modules", k.Release)
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		from := filepath.Join(k.ModuleDir(), name)
		if !exists(from) {
			continue
		}
		if err := copyFile(filepath.Join(base, name), from); err != nil {
			return err
		}
	}
	for name, data := range a.files(prefix) {
		if filepath.Ext(name) != ".ko" {
			continue
		}
		to := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	if _, err := output(ctx, "depmod", "-b", tmp, k.Release); err != nil {
		return fmt.Errorf("indexing the guest's modules: %w", err)
	}
	indexes, err := filepath.Glob(filepath.Join(base, "modules.*"))
	if err != nil {
		return err
	}
	for _, file := range indexes {
		if err := a.AddHostFile(prefix+filepath.Base(file), file); err != nil {
			return err
		}
	}
	return nil
}

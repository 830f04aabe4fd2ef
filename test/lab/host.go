// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// hostPackages says which Debian package a program that the lab runs is in.
func hostPackages() map[string]string {
	return map[string]string{
		"depmod":   "kmod",
		"xz":       "xz-utils",
		"zstd":     "zstd",
		"tar":      "tar",
		"dpkg-deb": "dpkg",
		"apt-get":  "apt",
		"unshare":  "util-linux",
	}
}

// need makes sure that this machine has the programs, installing what is
// missing where that is allowed.
func (l *Lab) need(ctx context.Context, programs ...string) error {
	var missing, packages []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		missing = append(missing, p)
		if pkg := hostPackages()[p]; !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("this machine lacks %s; as root, run: apt-get %s", strings.Join(missing, ", "), strings.Join(install, " "))
	}
	stop := l.progress("installing %s", strings.Join(packages, ", "))
	_, err := output(ctx, "apt-get", install...)
	if err != nil {
		// The machine's own index may be old or empty.
		if _, err = output(ctx, "apt-get", "update"); err == nil {
			_, err = output(ctx, "apt-get", install...)
		}
	}
	stop(err)
	if err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(packages, ", "), err)
	}
	return nil
}

// needFetch makes sure of what downloading and building takes.
func (l *Lab) needFetch(ctx context.Context) error {
	return l.need(ctx, "apt-get", "dpkg-deb", "tar", "unshare", "depmod", "xz", "zstd")
}

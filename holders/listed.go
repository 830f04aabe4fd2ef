package holders

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// algorithms have users inside the kernel (crypto/api.c). Each user holds the algorithm
// and its module, and the kernel prints how many hold the algorithm: one is itself
// (crypto/proc.c, c_show).
func (s *search) algorithms() {
	f, err := os.Open(s.path("proc/crypto"))
	if err != nil {
		return // the kernel has none
	}
	defer f.Close()
	one := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok {
			one[strings.TrimSpace(name)] = strings.TrimSpace(value)
			continue
		}
		s.algorithm(one)
		clear(one)
	}
}

func (s *search) algorithm(one map[string]string) {
	if refs, err := strconv.ParseInt(one["refcnt"], 10, 64); err == nil {
		s.relate(one["module"], refs-1, unload.Holder{
			Kind: unload.HolderCrypto, Path: one["name"],
			Detail: fmt.Sprintf("in use as %s inside the kernel or by a socket", one["driver"]),
		})
	}
}

// patches are livepatches that are enabled, or being disabled: each holds the module
// that it is in (kernel/livepatch/core.c, klp_init_patch_early).
func (s *search) patches() {
	for _, name := range s.names {
		dir := s.path("sys/kernel/livepatch", name)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		objects, err := filepath.Glob(filepath.Join(dir, "*", "patched"))
		if err != nil {
			continue
		}
		var patched []string
		for _, o := range objects {
			patched = append(patched, filepath.Base(filepath.Dir(o)))
		}
		s.relate(name, 1, unload.Holder{
			Kind: unload.HolderLivepatch, Path: "/sys/kernel/livepatch/" + name, Detail: "enabled, for " + strings.Join(patched, ", "),
		})
	}
}

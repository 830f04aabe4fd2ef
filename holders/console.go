package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

func consoleTypes() []string { return []string{"fb_info", "fb_ops"} }

// consoles are those on framebuffers, each of which holds whose operations it uses
// (drivers/video/fbdev/core/fbcon.c, fbcon_open).
func (s *search) consoles() {
	screens, err := filepath.Glob(s.path("sys/class/graphics/fb[0-9]*"))
	if err != nil || len(screens) == 0 {
		return
	}
	list := s.framebuffers()
	if list == 0 {
		s.unseen = append(s.unseen, "the console on a framebuffer: where the kernel lists these is not known")
		return
	}
	step := ""
	if file := s.consoleSwitch(); file != "" {
		step = "echo 0 > " + file
	}
	const most = 32 // include/uapi/linux/fb.h, FB_MAX
	for i, at := range s.Pointers(list, most) {
		info := s.At("fb_info", at)
		if info.Uint("fbcon_par") == 0 { // no console is on it
			continue
		}
		s.hold(info.Follow("fbops", "fb_ops").Uint("owner"), at, unload.Holder{
			Kind: unload.HolderKernel, Path: fmt.Sprintf("/dev/fb%d", i), Detail: "the console on that framebuffer",
		}).freeBy(step)
	}
}

// framebuffers is where the kernel lists them (drivers/video/fbdev/core/fbmem.c), 0 if
// that is not known. To look for it takes a while, and it stays.
func (s *search) framebuffers() uint64 {
	if s.registered != 0 {
		return s.registered
	}
	_ = symbols.Each(func(symbol symbols.Symbol) bool { // as if there were none
		if string(symbol.Name) == "registered_fb" {
			s.registered = symbol.Address
		}
		return s.registered == 0
	})
	return s.registered
}

// consoleSwitch is the file by which the consoles on framebuffers are given up, "" if
// there is none (Documentation/driver-api/console.rst).
func (r root) consoleSwitch() string {
	names, err := filepath.Glob(r.path("sys/class/vtconsole/vtcon*/name"))
	if err != nil {
		return ""
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), "frame buffer") {
			return filepath.Join("/sys/class/vtconsole", filepath.Base(filepath.Dir(name)), "bind")
		}
	}
	return ""
}

package klog

import (
	"regexp"
	"strconv"
	"time"
)

// Interface is a network interface that is on its way out and still in use.
type Interface struct {
	Name  string
	Users int64         // as last told
	Since time.Duration // when it was first told of, as in Line
}

var waits = regexp.MustCompile(`unregister_netdevice: waiting for (\S+) to become free\. Usage count = (\d+)`)

// Interfaces finds those that the kernel complained of within the last while,
// and had been complaining of without a break (net/core/dev.c,
// netdev_wait_allrefs_any). It does so at set intervals.
func Interfaces(lines []Line, now, while time.Duration) []Interface {
	var all []Interface
	last := map[string]time.Duration{}
	at := map[string]int{}
	for _, l := range lines {
		m := waits.FindStringSubmatch(l.Text)
		if m == nil {
			continue
		}
		name := m[1]
		users, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			continue
		}
		i, known := at[name]
		if !known {
			i = len(all)
			at[name] = i
			all = append(all, Interface{Name: name, Since: l.At})
		}
		if l.At-last[name] > while {
			all[i].Since = l.At
		}
		all[i].Users, last[name] = users, l.At
	}
	var recent []Interface
	for _, i := range all {
		if now-last[i.Name] <= while {
			recent = append(recent, i)
		}
	}
	return recent
}

// SPDX-License-Identifier: MIT

package lab

import (
	"os/exec"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	// Each is older than the next.
	order := []string{
		"0.9", "1.0~~", "1.0~~a", "1.0~", "1.0~rc1-1", "1.0", "1.0-0.1", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0a-1", "1.0+b", "1.0.1",
		"5.10.223-1", "6.1.176-1", "6.12.94-1~bpo12+1", "6.12.94-1", "6.12.107-1",
		"7.2.13-1", "7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", "7.3.4-1", "1:0.1",
	}
	for i, a := range order {
		for j, b := range order {
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
			checkWithDpkg(t, a, b, i-j)
		}
	}
}

// checkWithDpkg sees that the list above is right, where dpkg can be asked.
func checkWithDpkg(t *testing.T, a, b string, want int) {
	t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil || testing.Short() {
		return
	}
	relation := "eq"
	if want < 0 {
		relation = "lt"
	} else if want > 0 {
		relation = "gt"
	}
	if err := exec.Command("dpkg", "--compare-versions", a, relation, b).Run(); err != nil {
		t.Errorf("dpkg does not agree that %q is %s %q", a, relation, b)
	}
}

// SPDX-License-Identifier: MIT

package lab

import (
	"fmt"
	"strings"
)

// Series is a line of kernels of which the lab takes the newest.
type Series struct {
	// Name is what users type, for instance amd64-6.12.
	Name string
	// Arch is Debian's name of the architecture, which is also Go's.
	Arch string
	// Flavour is the last part of the kernel's release, for instance rt-amd64.
	Flavour string
	// Upstream is the part of the version that all kernels of the series share.
	Upstream string
	// Suites are where to look; the newest kernel of all of them is taken.
	Suites []string
	// Extra series are not part of the default matrix.
	Extra bool
}

// AllSeries returns every series the lab knows, the default matrix first.
func AllSeries() []Series {
	newest := []string{"experimental", "sid", "trixie-backports"}
	return []Series{
		{Name: "amd64-5.10", Arch: "amd64", Flavour: "amd64", Upstream: "5.10", Suites: []string{"bullseye"}},
		{Name: "amd64-6.1", Arch: "amd64", Flavour: "amd64", Upstream: "6.1", Suites: []string{"bookworm"}},
		{Name: "amd64-6.12", Arch: "amd64", Flavour: "amd64", Upstream: "6.12", Suites: []string{"trixie"}},
		{Name: "amd64-7", Arch: "amd64", Flavour: "amd64", Upstream: "7", Suites: newest},
		{Name: "arm64-6.12", Arch: "arm64", Flavour: "arm64", Upstream: "6.12", Suites: []string{"trixie"}},
		{Name: "arm64-6.1", Arch: "arm64", Flavour: "arm64", Upstream: "6.1", Suites: []string{"bookworm"}, Extra: true},
		{Name: "amd64-6.12-rt", Arch: "amd64", Flavour: "rt-amd64", Upstream: "6.12", Suites: []string{"trixie"}, Extra: true},
		{Name: "arm64-7", Arch: "arm64", Flavour: "arm64", Upstream: "7", Suites: newest, Extra: true},
	}
}

// Matrix returns the series that a full run covers.
func Matrix() []Series {
	var m []Series
	for _, s := range AllSeries() {
		if !s.Extra {
			m = append(m, s)
		}
	}
	return m
}

// FindSeries returns the series of a name.
func FindSeries(name string) (Series, error) {
	var names []string
	for _, s := range AllSeries() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Series{}, fmt.Errorf("no kernel series %q; there are %s", name, strings.Join(names, ", "))
}

// release returns the kernel's release (uname -r) if the package is an image of
// this series, and whether the image is the unsigned variant.
func (s Series) release(pkg string) (release string, unsigned, ok bool) {
	if release, unsigned = strings.CutPrefix(pkg, "linux-binary-unsigned-"); !unsigned {
		if release, ok = strings.CutPrefix(pkg, "linux-image-"); !ok {
			return "", false, false
		}
		release, unsigned = strings.CutSuffix(release, "-unsigned")
	}
	rest, ok := strings.CutPrefix(release, s.Upstream)
	// 6.1 must not match 6.12, nor amd64 the release of cloud-amd64.
	if !ok || rest == "" || (rest[0] != '.' && rest[0] != '-') {
		return "", false, false
	}
	abi, ok := strings.CutSuffix(release, "-"+s.Flavour)
	if !ok || strings.HasSuffix(abi, "-cloud") || strings.HasSuffix(abi, "-rt") {
		return "", false, false
	}
	return release, unsigned, true
}

// candidate is a kernel found in one suite.
type candidate struct {
	Release  string // uname -r
	Package  string
	Version  string // the package's
	Suite    string
	Unsigned bool
}

// newest picks the newest kernel of the series among a suite's packages, a
// signed one before an unsigned one of the same version.
func (s Series) newest(suite string, pkgs []packageRecord, best *candidate) *candidate {
	for _, p := range pkgs {
		release, unsigned, ok := s.release(p.Name)
		if !ok {
			continue
		}
		c := &candidate{Release: release, Package: p.Name, Version: p.Version, Suite: suite, Unsigned: unsigned}
		if best == nil || c.better(best) {
			best = c
		}
	}
	return best
}

func (c *candidate) better(than *candidate) bool {
	if d := compareVersions(c.Version, than.Version); d != 0 {
		return d > 0
	}
	return than.Unsigned && !c.Unsigned
}

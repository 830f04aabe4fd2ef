// SPDX-License-Identifier: MIT

package lab

import (
	"slices"
	"strings"
	"testing"
)

func records(lines ...string) []packageRecord {
	var all []packageRecord
	for _, l := range lines {
		f := strings.Fields(l)
		all = append(all, packageRecord{Name: f[0], Version: f[1]})
	}
	return all
}

func TestNewestOfSeries(t *testing.T) {
	trixie := records(
		"linux-image-6.12.107+deb13-amd64 6.12.107-1",
		"linux-image-6.12.107+deb13-amd64-unsigned 6.12.107-1",
		"linux-image-6.12.107+deb13-amd64-dbg 6.12.107-1",
		"linux-image-6.12.107+deb13-cloud-amd64 6.12.107-1",
		"linux-image-6.12.107+deb13-rt-amd64 6.12.107-1",
		"linux-image-6.12.94+deb13-amd64 6.12.94-1",
		"linux-image-amd64 6.12.107-1",
		"linux-image-rt-amd64 6.12.107-1",
	)
	bookworm := records(
		"linux-image-6.1.0-47-amd64 6.1.170-1",
		"linux-image-6.1.0-50-amd64-unsigned 6.1.176-1",
		"linux-image-6.12.9+bpo-amd64 6.12.9-1",
	)
	for _, c := range []struct {
		series string
		suites map[string][]packageRecord
		want   candidate
	}{
		{"amd64-6.12", map[string][]packageRecord{"trixie": trixie},
			candidate{"6.12.107+deb13-amd64", "linux-image-6.12.107+deb13-amd64", "6.12.107-1", "trixie", false}},
		{"amd64-6.12-rt", map[string][]packageRecord{"trixie": trixie},
			candidate{"6.12.107+deb13-rt-amd64", "linux-image-6.12.107+deb13-rt-amd64", "6.12.107-1", "trixie", false}},
		{"amd64-6.1", map[string][]packageRecord{"bookworm": bookworm},
			candidate{"6.1.0-50-amd64", "linux-image-6.1.0-50-amd64-unsigned", "6.1.176-1", "bookworm", true}},
		{"amd64-7", map[string][]packageRecord{
			"experimental":     records("linux-image-7.3-amd64 7.3~rc7-1~exp1"),
			"sid":              records("linux-image-7.2.13+deb14-amd64 7.2.13-1"),
			"trixie-backports": records("linux-binary-unsigned-7.3.4+deb13-amd64 7.3.4-1~bpo13+1", "linux-image-6.19.1+deb13-amd64 6.19.1-1"),
		}, candidate{"7.3.4+deb13-amd64", "linux-binary-unsigned-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports", true}},
	} {
		s, err := FindSeries(c.series)
		if err != nil {
			t.Fatal(err)
		}
		var best *candidate
		for _, suite := range s.Suites {
			best = s.newest(suite, c.suites[suite], best)
		}
		if best == nil || *best != c.want {
			t.Errorf("%s: %+v, want %+v", c.series, best, c.want)
		}
	}
}

func TestNoKernelOfSeries(t *testing.T) {
	for _, s := range AllSeries() {
		if best := s.newest("x", records("linux-image-4.19.0-1-amd64 4.19-1", "linux-image-arm64 6.1-1", "linux-image-6.1-armmp 6.1-1"), nil); best != nil {
			t.Errorf("%s took %+v", s.Name, best)
		}
	}
}

func TestSeriesTable(t *testing.T) {
	want := []string{"amd64-5.10", "amd64-6.1", "amd64-6.12", "amd64-7", "arm64-6.12"}
	var got []string
	for _, s := range Matrix() {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the matrix is %v, want %v", got, want)
	}
	if _, err := FindSeries("amd64-2.6"); err == nil || !strings.Contains(err.Error(), "arm64-7") {
		t.Errorf("an unknown series gave %v, want the list of those that there are", err)
	}
}

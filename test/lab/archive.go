// SPDX-License-Identifier: MIT

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// archive is a private view of one suite of the Debian archive for one
// architecture. It has its own apt configuration, so that neither the lists nor
// the packages of the machine itself are touched.
type archive struct {
	dir   string // configuration, empty dpkg status
	lists string // indexes, shared by all suites
	debs  string // downloaded packages, shared by all suites
	suite string
	arch  string
}

// packageRecord is what the archive's index says about one package.
type packageRecord struct {
	Name, Version, Architecture, Depends string
}

var errNoArchive = errors.New("apt's sources name no Debian archive (label \"Debian\"); add one, or set MODTRACE_LAB_MIRROR to the address of one")

// archiveSource returns the address of the Debian archive that this machine's
// apt uses.
func archiveSource(ctx context.Context) (string, error) {
	if mirror := os.Getenv("MODTRACE_LAB_MIRROR"); mirror != "" {
		return mirror, nil
	}
	out, err := output(ctx, "apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", fmt.Errorf("asking apt for its sources: %w", err)
	}
	return pickSource(out)
}

// pickSource reads lines of label and address.
func pickSource(targets string) (string, error) {
	var unlabelled string
	for _, line := range strings.Split(targets, "\n") {
		label, uri, _ := strings.Cut(line, "|")
		switch {
		case label == "Debian" && uri != "":
			return uri, nil
		case unlabelled == "" && path.Base(uri) == "debian":
			// A machine that never updated its index knows no labels yet.
			unlabelled = uri
		}
	}
	if unlabelled == "" {
		return "", errNoArchive
	}
	return unlabelled, nil
}

// archive returns the private view of a suite; its index is brought when it is
// not there, or once per Lab when a refresh was asked for.
func (l *Lab) archive(ctx context.Context, suite, arch string) (archive, error) {
	key := suite + "-" + arch
	a := archive{dir: l.path("apt", key), lists: l.path("lists"), debs: l.path("debs"), suite: suite, arch: arch}
	done := filepath.Join(a.dir, "complete")
	if !l.stale(key) && exists(done) {
		return a, nil
	}
	ctx, release, err := l.hold(ctx)
	if err != nil {
		return a, err
	}
	defer release()
	if err := l.needFetch(ctx); err != nil {
		return a, err
	}
	uri, err := archiveSource(ctx)
	if err != nil {
		return a, err
	}
	if err := a.configure(uri); err != nil {
		return a, fmt.Errorf("configuring apt for %s: %w", key, err)
	}
	stop := l.progress("package index of %s for %s", suite, arch)
	err = a.update(ctx)
	stop(err)
	if err != nil {
		return a, err
	}
	l.setFresh(key)
	return a, os.WriteFile(done, nil, 0o644)
}

func (a archive) conf() string { return filepath.Join(a.dir, "apt.conf") }

// configure writes the private configuration. Options given on the command line
// come after /etc/apt/apt.conf.d, so proxies set there stay in force.
func (a archive) configure(uri string) error {
	for _, d := range []string{a.dir, filepath.Join(a.lists, "partial"), filepath.Join(a.debs, "partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := ""
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	if _, err := os.Stat(keyring); err == nil {
		options = "[signed-by=" + keyring + "] "
	}
	conf := fmt.Sprintf(`#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture "%[3]s";
APT::Architectures { "%[3]s"; };
APT::Sandbox::User "";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "%[1]s";
Dir::State::lists "%[4]s";
APT::Get::List-Cleanup "false";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s";
Dir::Cache::archives "%[2]s";
Dir::Log "%[1]s";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Check-Valid-Until "false";
`, a.dir, a.debs, a.arch, a.lists)
	for name, text := range map[string]string{
		"apt.conf":     conf,
		"status":       "",
		"sources.list": sourcesList(a.suite, options, uri),
	} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sourcesList names the suite, and the one that its packages depend on where it
// is not complete in itself.
func sourcesList(suite, options, uri string) string {
	suites := []string{suite}
	switch base, isBackports := strings.CutSuffix(suite, "-backports"); {
	case isBackports:
		suites = append(suites, base)
	case suite == "experimental":
		suites = append(suites, "sid")
	}
	var b strings.Builder
	for _, s := range suites {
		fmt.Fprintf(&b, "deb %s%s %s main\n", options, uri, s)
	}
	return b.String()
}

// update brings the suite's index.
func (a archive) update(ctx context.Context) error {
	if _, err := a.apt(ctx, "apt-get", "update", "-qq", "--error-on=any"); err != nil {
		return fmt.Errorf("updating the index of %s for %s: %w", a.suite, a.arch, err)
	}
	return nil
}

// search returns the packages whose names match a regular expression.
func (a archive) search(ctx context.Context, pattern string) ([]packageRecord, error) {
	out, err := a.apt(ctx, "apt-cache", "search", "--names-only", "--full", pattern)
	if err != nil {
		return nil, fmt.Errorf("searching %s for %s: %w", a.suite, pattern, err)
	}
	return parseRecords(out), nil
}

// parseRecords reads the paragraphs of a package index.
func parseRecords(text string) []packageRecord {
	var all []packageRecord
	var cur packageRecord
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ": ")
		switch key {
		case "Package":
			cur.Name = value
		case "Version":
			cur.Version = value
		case "Architecture":
			cur.Architecture = value
		case "Depends":
			cur.Depends = value
		case "":
			if cur.Name != "" {
				all = append(all, cur)
			}
			cur = packageRecord{}
		}
	}
	if cur.Name != "" {
		all = append(all, cur)
	}
	return all
}

// download fetches the named packages alone, and returns the files.
func (a archive) download(ctx context.Context, names ...string) ([]string, error) {
	return a.get(ctx, []string{"download"}, []string{"download"}, names)
}

// closure fetches the named packages with everything they depend on, and
// returns the files.
func (a archive) closure(ctx context.Context, names ...string) ([]string, error) {
	return a.get(ctx, []string{"install"}, []string{"install", "--download-only"}, names)
}

// get asks apt for the files that a command would download, and runs it unless
// all of them are there.
func (a archive) get(ctx context.Context, ask, fetch, names []string) ([]string, error) {
	// Files that are there already are not printed, so ask in an empty place.
	empty := filepath.Join(a.dir, "none")
	if err := os.MkdirAll(filepath.Join(empty, "partial"), 0o755); err != nil {
		return nil, err
	}
	ask = append(ask, "--print-uris", "-qq", "-o", "Dir::Cache::archives="+empty)
	out, err := a.aptIn(ctx, empty, "apt-get", append(ask, names...)...)
	if err != nil {
		return nil, fmt.Errorf("resolving %s in %s: %w", strings.Join(names, " "), a.suite, err)
	}
	files := a.filesOf(out)
	if len(files) == 0 {
		return nil, fmt.Errorf("resolving %s in %s: apt names no file", strings.Join(names, " "), a.suite)
	}
	if len(absent(files)) == 0 {
		return files, nil
	}
	if _, err := a.apt(ctx, "apt-get", append(append(fetch, "-qq"), names...)...); err != nil {
		return nil, fmt.Errorf("downloading %s: %w", strings.Join(names, " "), err)
	}
	if missing := absent(files); len(missing) > 0 {
		return nil, fmt.Errorf("downloading %s: apt left out %s", strings.Join(names, " "), strings.Join(missing, ", "))
	}
	return files, nil
}

// filesOf reads apt-get --print-uris: 'uri' file size checksum.
func (a archive) filesOf(uris string) []string {
	var files []string
	for _, l := range strings.Split(uris, "\n") {
		f := strings.Fields(l)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		files = append(files, filepath.Join(a.debs, f[1]))
	}
	return files
}

func (a archive) apt(ctx context.Context, program string, args ...string) (string, error) {
	return a.aptIn(ctx, a.debs, program, args...)
}

func (a archive) aptIn(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", a.conf()}, args...)...)
	cmd.Dir = dir
	return outputOf(cmd)
}

func absent(files []string) []string {
	var missing []string
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			missing = append(missing, f)
		}
	}
	return missing
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputOf(exec.CommandContext(ctx, name, args...))
}

// outputOf runs cmd and puts what it said on stderr into the error, because
// "exit status 100" alone helps nobody.
func outputOf(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Messages are parsed or shown; both want one language.
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(stderr.String()+stdout.String(), 20))
	}
	return stdout.String(), nil
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// SPDX-License-Identifier: MIT

package lab

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"
)

// Initrd collects files and writes them as a newc cpio archive, the form in
// which the kernel takes its first root file system. The bytes depend on the
// content alone: not on the order of adding, nor on times or owners.
type Initrd struct {
	entries map[string]cpioEntry
}

type cpioEntry struct {
	mode uint32 // type and permission bits as in struct stat
	data []byte
}

const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeLink    = 0o120000
)

// NewInitrd returns an empty archive.
func NewInitrd() *Initrd { return &Initrd{entries: map[string]cpioEntry{}} }

// Clone returns a copy that can be added to without changing the original.
func (a *Initrd) Clone() *Initrd {
	c := NewInitrd()
	for name, e := range a.entries {
		c.entries[name] = e
	}
	return c
}

// AddFile adds a regular file with its permission bits. A file of the same name
// is replaced. Missing directories are added with mode 0755.
func (a *Initrd) AddFile(name string, perm os.FileMode, data []byte) {
	a.add(name, cpioEntry{modeRegular | uint32(perm.Perm()), data})
}

// AddLink adds a symbolic link.
func (a *Initrd) AddLink(name, target string) {
	a.add(name, cpioEntry{modeLink | 0o777, []byte(target)})
}

// AddDir adds an empty directory.
func (a *Initrd) AddDir(name string, perm os.FileMode) {
	a.add(name, cpioEntry{modeDir | uint32(perm.Perm()), nil})
}

// AddHostFile adds a file of this machine, with its permission bits.
func (a *Initrd) AddHostFile(name, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	a.AddFile(name, info.Mode(), data)
	return nil
}

// Has says whether a file, link or directory of this name was added.
func (a *Initrd) Has(name string) bool {
	_, ok := a.entries[clean(name)]
	return ok
}

// files returns the content of the regular files below a directory, by their
// names relative to it.
func (a *Initrd) files(dir string) map[string][]byte {
	found := map[string][]byte{}
	for name, e := range a.entries {
		if rest, ok := strings.CutPrefix(name, clean(dir)+"/"); ok && e.mode&modeType == modeRegular {
			found[rest] = e.data
		}
	}
	return found
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (a *Initrd) add(name string, e cpioEntry) {
	name = clean(name)
	if name == "" {
		return
	}
	a.entries[name] = e
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := a.entries[dir]; !ok {
			a.entries[dir] = cpioEntry{mode: modeDir | 0o755}
		}
	}
}

// Bytes returns the archive.
func (a *Initrd) Bytes() []byte {
	names := make([]string, 0, len(a.entries))
	size := 4096
	for name, e := range a.entries {
		names = append(names, name)
		size += 120 + len(name) + len(e.data)
	}
	// Sorted, a directory comes before what is in it, as the kernel needs it.
	sort.Strings(names)
	var b bytes.Buffer
	b.Grow(size)
	for i, name := range names {
		writeEntry(&b, i+1, name, a.entries[name])
	}
	writeEntry(&b, 0, "TRAILER!!!", cpioEntry{})
	pad(&b, 512)
	return b.Bytes()
}

func writeEntry(b *bytes.Buffer, inode int, name string, e cpioEntry) {
	links := 1
	if e.mode&modeType == modeDir {
		links = 2
	}
	// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
	// rdevminor namesize check; the name counts its NUL.
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		inode, e.mode, 0, 0, links, 0, len(e.data), 0, 0, 0, 0, len(name)+1, 0)
	b.WriteString(name)
	b.WriteByte(0)
	pad(b, 4)
	b.Write(e.data)
	pad(b, 4)
}

func pad(b *bytes.Buffer, to int) {
	for b.Len()%to != 0 {
		b.WriteByte(0)
	}
}

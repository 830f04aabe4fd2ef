// SPDX-License-Identifier: MIT

package lab_test

import (
	"testing"

	"github.com/modtrace/modtrace/test/lab"
)

// TestSmoke boots every kernel of the matrix and sees that the fixtures do on it
// what other tests rely on.
func TestSmoke(t *testing.T) {
	l := lab.ForTest(t)
	l.EachKernel(t, func(t *testing.T, k *lab.Kernel) {
		ctx := t.Context()
		image, err := l.Initrd(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.AddKmod(ctx, image, k); err != nil {
			t.Fatal(err)
		}
		if err := l.AddModules(ctx, image, k, "veth"); err != nil {
			t.Fatal(err)
		}
		l.RunTests(t, lab.Machine{
			Kernel: k,
			Initrd: image,
			Env:    []string{"SMOKE_RELEASE=" + k.Release},
		}, l.TestBinary(t, k, "./test/lab/smoke"))
	})
}

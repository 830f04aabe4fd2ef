//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// One object, so that all topics share one ring and one gate.

#include "unload.h"
#include "wait.h"
#include "refs.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

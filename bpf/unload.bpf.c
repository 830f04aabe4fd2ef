// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// One object, so that all topics share one ring and one gate.

// clang-format off
//go:build ignore

#include "unload.h"
#include "wait.h"
#include "refs.h"
#include "sample.h"
#include "blocker.h"
#include "convoy.h"
#include "effect.h"
#include "notifier.h"
#include "load.h"
#include "look.h"
#include "thread.h"
#include "symbol.h"
#include "locate.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// SPDX-License-Identifier: BSD-3-Clause

// Package attention is libattention, attention on CPUs with PyTorch's numbers, through its C
// interface.
//
// Tensors are views of your slices: nothing is copied, and the library is given no pointer that it
// keeps. Every function may be called by any number of goroutines at once, as long as none writes
// what another reads.
package attention

// #cgo pkg-config: attention
// #include "flat.h"
import "C"

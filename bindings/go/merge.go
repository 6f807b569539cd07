// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import (
	"fmt"
	"runtime/cgo"
)

// A PartialResult is what SDPA made of some of the keys: Output (..., L, Ev), and LSE (..., L), nil where
// the normalizer has none.
type PartialResult struct {
	Output, LSE *View
}

// MergeOptions are the options of Merge.
type MergeOptions struct {
	Context *Context // nil: the process's default one
	Sinks   *View    // (Hq) or (1): one more logit of each row, that no part has counted
	LSE     *View    // out: (..., L)
}

// mostParts bounds the thread's stack that a merge takes: some 500 bytes for each part.
const mostParts = 128

// Merge puts together what was attended over parts of the keys, at most 128; what it makes may be a part
// again. output, and the LSE of the options, may be those of a part. If no part has an LSE, outputs are
// added. options may be nil.
func Merge(parts []PartialResult, output *View, options *MergeOptions) error {
	if options == nil {
		options = &MergeOptions{}
	}
	if len(parts) > mostParts {
		return failure(ErrValue, "parts: expected at most %d, got %d", mostParts, len(parts))
	}
	views, names := []*View{output, options.LSE, options.Sinks}, []string{"output", "lse", "sinks"}
	merge := &merging{count: len(parts)}
	for i, part := range parts {
		views = append(views, part.Output, part.LSE)
		names = append(names, fmt.Sprintf("outputs[%d]", i), fmt.Sprintf("lses[%d]", i))
		if part.LSE != nil {
			merge.hasLSE = 1
		}
	}
	layouts, err := layoutsOf(views, names)
	if err != nil {
		return err
	}
	merge.views, merge.layouts = views, layouts
	handle := cgo.NewHandle(merge)
	defer handle.Delete()
	return use(options.Context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		merge.context = context
		return merge.add(C.uintptr_t(handle), merge.count-1, nil)
	})
}

// A merging is a call of Merge under way. C may be given a pointer to Go memory as an argument, and only
// until that call returns; so each part is handed over by a call of its own, which makes the next one.
type merging struct {
	context *C.attn_context
	count   int
	hasLSE  C.int32_t
	views   []*View // of the output, its lse and the sinks, then of an output and an lse for each part
	layouts []C.attn_tensor
}

// add hands part index over to C, in front of those after it, then the parts before it; at -1 it merges
// them.
func (merge *merging) add(handle C.uintptr_t, index int, after *C.flat_part) C.attn_status {
	if index < 0 {
		return C.flat_merge(merge.context, C.int64_t(merge.count), after, merge.hasLSE, &merge.layouts[0],
			dataOf(merge.views[0]), dataOf(merge.views[1]), dataOf(merge.views[2]))
	}
	at := 3 + 2*index
	return C.flat_merge_part(handle, C.int64_t(index), after, &merge.layouts[at],
		dataOf(merge.views[at]), dataOf(merge.views[at+1]))
}

//export attention_merge_rest
func attention_merge_rest(handle C.uintptr_t, count C.int64_t, parts *C.flat_part) C.attn_status {
	return cgo.Handle(handle).Value().(*merging).add(handle, int(count)-1, parts)
}

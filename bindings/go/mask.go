// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// A Mask says which keys a query may attend to, and what its elements mean: PyTorch gives a bool
// mask opposite meanings in its two attention functions. The zero Mask is none. A query that sees
// no key gets weights 0.
type Mask struct {
	kind C.int32_t
	view *View
}

// Additive is a mask of floats that are added to the scores; negative infinity masks out.
func Additive(view *View) Mask { return Mask{C.ATTN_MASK_ADDITIVE, view} }

// Include is a mask of bools, true: takes part, as in PyTorch's scaled_dot_product_attention.
func Include(view *View) Mask { return Mask{C.ATTN_MASK_BOOL_INCLUDE, view} }

// Exclude is a mask of bools, true: masked out, as in PyTorch's nn.MultiheadAttention.
func Exclude(view *View) Mask { return Mask{C.ATTN_MASK_BOOL_EXCLUDE, view} }

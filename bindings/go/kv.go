// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// A KV is where the keys and values of sequences lie. Key j of a sequence is
//
//	row j of its own                            Key (batch axes, Hk, C, E), if there is nothing else
//	row Starts[b] + j                           Key (Hk, total, E)
//	row j % page of page PageTable[b, j / page] Key (pages, Hk, page, E)
//
// The last with PageStarts of page PageTable[PageStarts[b] + j / page]. Value has Hv heads and Ev
// features. What says so is of int64 or int32.
type KV struct {
	Key, Value *View
	PageTable  *View // (batch axes, M), with PageStarts (P)
	PageStarts *View // (B + 1)
	Starts     *View // (B + 1)
	Lengths    *View // broadcastable to the batch axes: rows in use; nil: all

	// Beside Key and Value of int8 or uint8, which mean (element - zero) * scale: float32 or of 16
	// bits, as many axes, each of whose lengths divides Key's. nil: 1, and 0 or 128.
	KeyScale, ValueScale, KeyZero, ValueZero *View
}

// KVAppendOptions are the options of KVAppend. The zero value: as many new rows for each sequence,
// at the end of its rows in use.
type KVAppendOptions struct {
	Context   *Context // nil: the process's default one
	Starts    *View    // (B + 1): the new rows of sequences, in key (Hk, total, E) and value
	Positions *View    // (batch axes, L), (total): where new rows go; negative: nowhere
}

// KVAppend stores new rows of keys (batch axes, Hk, L, E) and values (batch axes, Hv, L, Ev),
// converted, where kv says; kv.Lengths count them already. Nothing is written if it fails. options
// may be nil.
func KVAppend(kv *KV, key, value *View, options *KVAppendOptions) error {
	if options == nil {
		options = &KVAppendOptions{}
	}
	views := operands{
		C.FLAT_KEY:           key,
		C.FLAT_VALUE:         value,
		C.FLAT_NEW_STARTS:    options.Starts,
		C.FLAT_NEW_POSITIONS: options.Positions,
	}
	request := C.flat_call{appends: 1}
	kv.addTo(&views, &request)
	return views.run(options.Context, nil, request)
}

// addTo makes a call one with these keys and values; nil: without.
func (kv *KV) addTo(views *operands, request *C.flat_call) {
	if kv == nil {
		return
	}
	request.has_kv = 1
	kv.put(views)
}

// addAsCache makes a layer's call one that stores new rows here, and attends to all; nil: without.
func (kv *KV) addAsCache(views *operands, request *C.flat_call) {
	if kv == nil {
		return
	}
	request.has_cache = 1
	kv.put(views)
}

func (kv *KV) put(views *operands) {
	views[C.FLAT_KV_KEY] = kv.Key
	views[C.FLAT_KV_VALUE] = kv.Value
	views[C.FLAT_KV_PAGE_TABLE] = kv.PageTable
	views[C.FLAT_KV_PAGE_STARTS] = kv.PageStarts
	views[C.FLAT_KV_STARTS] = kv.Starts
	views[C.FLAT_KV_LENGTHS] = kv.Lengths
	views[C.FLAT_KV_KEY_SCALE] = kv.KeyScale
	views[C.FLAT_KV_VALUE_SCALE] = kv.ValueScale
	views[C.FLAT_KV_KEY_ZERO] = kv.KeyZero
	views[C.FLAT_KV_VALUE_ZERO] = kv.ValueZero
}

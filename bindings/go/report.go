// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// OutputShapes are what a call's outputs are shaped like, for whoever allocates them.
type OutputShapes struct {
	Output          []int
	LSE             []int // nil where the normalizer has none
	Weights         []int // one matrix for each head
	AveragedWeights []int // their mean over the heads
	Scores          []int
}

// An SDPAReport is what a call runs and why, for people to read.
type SDPAReport struct {
	Engine               Engine
	Gemm                 Gemm  // who computes the matrix products
	DependsOnBlasThreads bool  // the last bits may differ with the number of threads BLAS uses
	Packs                Packs // tensors that go through a copy
	RowBlock             int64 // query rows handled together
	NumBlocks            int64 // pieces of work
	WorkspaceBytes       uint64
	Kernels              string
	Reason               string // one sentence: why this engine
}

// A MultiheadReport is what a layer's call runs, for people to read.
type MultiheadReport struct {
	ProjectionGemm       Gemm
	DependsOnBlasThreads bool // in projections or attention
	WorkspaceBytes       uint64
	Kernels              string
	Attention            SDPAReport
}

// A BackwardReport is what a call of SDPABackward runs and why, for people to read.
type BackwardReport struct {
	WholeHeads     bool  // an item walks all keys of a head; else threads share a head
	Staged         int   // gradients that are summed apart before they are written
	NumItems       int64 // pieces of work for query, key and value; 0 where none is wanted
	RowBlock       int64
	KeyBlock       int64
	WorkspaceBytes uint64
	Kernels        string
	Reason         string // one sentence: why this schedule
}

// Packs are tensors that a call copies, a block at a time.
type Packs int32

const (
	PackQuery  Packs = C.ATTN_SDPA_PACK_QUERY
	PackKey    Packs = C.ATTN_SDPA_PACK_KEY
	PackValue  Packs = C.ATTN_SDPA_PACK_VALUE
	PackOutput Packs = C.ATTN_SDPA_PACK_OUTPUT
)

// describeOutputs looks at no data, and at none of the outputs that the views have already.
func (views *operands) describeOutputs(layer *MultiheadAttention, request C.flat_call) (*OutputShapes, error) {
	layouts, err := views.layouts()
	if err != nil {
		return nil, err
	}
	outputs := C.attn_sdpa_outputs{struct_size: C.sizeof_attn_sdpa_outputs}
	err = use(nil, layer, shared, func(_ *C.attn_context, layer *C.attn_mha) C.attn_status {
		request.layer = layer
		return C.flat_describe_outputs(&request, &layouts[0], &outputs)
	})
	if err != nil {
		return nil, err
	}
	shapes := &OutputShapes{
		Output:          shapeOf(&outputs.output),
		Weights:         shapeOf(&outputs.weights),
		AveragedWeights: shapeOf(&outputs.averaged_weights),
		Scores:          shapeOf(&outputs.scores),
	}
	if outputs.lse.dtype != C.ATTN_DTYPE_INVALID {
		shapes.LSE = shapeOf(&outputs.lse)
	}
	return shapes, nil
}

// explain fills the report of attention alone if the layer is nil.
func (views *operands) explain(context *Context, layer *MultiheadAttention, request C.flat_call) (*MultiheadReport, error) {
	layouts, err := views.layouts()
	if err != nil {
		return nil, err
	}
	attention := C.attn_sdpa_report{struct_size: C.sizeof_attn_sdpa_report}
	around := C.attn_mha_report{struct_size: C.sizeof_attn_mha_report}
	err = use(context, layer, shared, func(context *C.attn_context, layer *C.attn_mha) C.attn_status {
		request.context, request.layer = context, layer
		return C.flat_explain(&request, &layouts[0], &attention, &around)
	})
	if err != nil {
		return nil, err
	}
	return &MultiheadReport{
		ProjectionGemm:       Gemm(around.projection_gemm),
		DependsOnBlasThreads: around.depends_on_blas_threads != 0,
		WorkspaceBytes:       uint64(around.workspace_bytes),
		Kernels:              C.GoString(around.kernels),
		Attention: SDPAReport{
			Engine:               Engine(attention.engine),
			Gemm:                 Gemm(attention.gemm),
			DependsOnBlasThreads: attention.depends_on_blas_threads != 0,
			Packs:                Packs(attention.packs),
			RowBlock:             int64(attention.row_block),
			NumBlocks:            int64(attention.num_blocks),
			WorkspaceBytes:       uint64(attention.workspace_bytes),
			Kernels:              C.GoString(attention.kernels),
			Reason:               C.GoString(attention.reason),
		},
	}, nil
}

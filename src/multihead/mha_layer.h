/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_layer.h: a layer's sizes and parameters, and the steps of a forward call: check -> plan ->
 * forward.
 */
#ifndef ATTNI_MULTIHEAD_MHA_LAYER_H
#define ATTNI_MULTIHEAD_MHA_LAYER_H

#include <attention/multihead.h>

#include "base/allocator.h"
#include "cache/append_problem.h"
#include "gemm/gemm.h"
#include "norm/norm_rows.h"
#include "problem/sdpa_problem.h"
#include "problem/sdpa_request.h"
#include "rotary/rope_problem.h"
#include "sdpa/sdpa_plan.h"
#include "tensor/tensor_check.h"

/* The layer's tensors, one by one. PyTorch's stacked parameters (in_proj_weight, in_proj_bias) are
 * three neighbours of these. */
enum {
    ATTNI_Q_WEIGHT, /* (H*D, qdim) */
    ATTNI_K_WEIGHT, /* (Hk*D, kdim) */
    ATTNI_V_WEIGHT, /* (Hk*Dv, vdim) */
    ATTNI_Q_BIAS,   /* (H*D) */
    ATTNI_K_BIAS,   /* (Hk*D) */
    ATTNI_V_BIAS,   /* (Hk*Dv) */
    ATTNI_BIAS_K,   /* (Hk*D): the learned extra key */
    ATTNI_BIAS_V,   /* (Hk*Dv): the learned extra value */
    ATTNI_O_WEIGHT, /* (embed_dim, H*Dv) */
    ATTNI_O_BIAS,   /* (embed_dim) */
    ATTNI_Q_NORM,   /* (D) or (H*D): weight of the norm of queries */
    ATTNI_K_NORM,   /* (D) or (Hk*D): of keys */
    ATTNI_NUM_SLOTS
};

/* Weights in the order of their projections. */
enum { ATTNI_NUM_PROJECTIONS = 4, ATTNI_NUM_INPUT_PROJECTIONS = 3 };

/* One tensor: copied (owned is its memory) or bound (owned is NULL). Not set: view.data is NULL,
 * its shape and strides being those of a copy.
 *
 * A copied weight is kept in the strips that the native product reads (gemm/strips.h), and only so:
 * its view's strides are then those it would have as a dense matrix. */
typedef struct attni_mha_slot {
    attn_tensor view;
    bool in_strips; /* true of a weight that is not set, too: plans are made for a copied one */
    float *scales;  /* NULL, or in owned: one for each row of a weight of int8, whose elements times
                       it are the weight */
    void *owned;
    size_t owned_bytes;
} attni_mha_slot;

struct attn_mha {
    attni_allocator allocator;
    int32_t dtype;           /* of query, key, value and output */
    int32_t score_dtype;     /* of everything in between */
    int32_t parameter_dtype; /* of the slots; beside int8 only weights of projections have it, the
                                rest has score_dtype */
    int64_t embed_dim;
    int64_t qdim;
    int64_t kdim;
    int64_t vdim;
    int64_t num_heads;      /* H */
    int64_t num_kv_heads;   /* Hk */
    int64_t head_dim;       /* D */
    int64_t value_head_dim; /* Dv */
    bool has_bias;
    bool has_bias_kv;
    bool has_zero_attn;
    bool is_batch_first;
    int32_t qk_norm; /* enum attn_qk_norm */
    double qk_norm_epsilon;
    double qk_norm_weight_offset;
    bool is_packed; /* PyTorch would store the three input projections as one in_proj_weight */
    attni_mha_slot slots[ATTNI_NUM_SLOTS]; /* those the layer has not keep rank 0 and no data */
};

/* A call as it comes. */
typedef struct attni_mha_request {
    const attn_mha *layer;
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_mha_params *params;
    const attn_tensor *output; /* or its gradient, which has its shape and type */
    const char *output_name;
    bool reads_output;  /* which may repeat then */
    bool saves;         /* whether or not params say where */
    bool has_workspace; /* the caller's memory, for whatever the starts are */
    attni_data_rule data_rule;
} attni_mha_request;

/* A checked forward call. Views are in canonical order, whatever the caller's: (N, L, features) and
 * so on, batch of one for unbatched. Copies of the caller's structs are today's. */
typedef struct attni_mha_problem {
    const attn_mha *layer;
    bool is_batched;     /* else the caller's tensors have no N, nor have the attention's options */
    bool is_batch_major; /* memory order of the caller's tensors: N outermost, else the sequence */
    bool has_starts;     /* rows are those of attention.query_starts: (total, features) of the
                            caller's, and one batch of them here */
    int64_t batch;       /* N */
    int64_t tgt_len;     /* L */
    int64_t new_len;     /* rows of key and value: S, or with a cache those that are new */
    int64_t src_len;     /* S */
    int64_t extra_cols;  /* T - S */
    bool has_cache;
    bool has_rope;
    bool appends;               /* key and value are there to be stored in the cache */
    bool is_ragged;             /* sequences of the cache have no one number of rows */
    bool has_sequences;         /* there is an axis for them: of N, or of starts */
    int64_t num_sequences;      /* N, or those of the starts */
    attni_operand query_starts; /* with has_starts */
    bool has_workspace;         /* of the request */
    bool saves;                 /* what a backward pass needs is kept */
    attn_tensor query;
    attn_tensor key;
    attn_tensor value;
    attn_tensor output;
    attni_mask key_padding_mask; /* strides over (N, H, L, S) */
    attn_mha_params params;
    attn_sdpa_params attention; /* its mask, if any, is attn_mask; its kv the cache */
    attn_kv cache;
    attn_rope_params rope;         /* its lengths, if nothing else is given, are the cache's */
    const attn_tensor *given_mask; /* attn_mask as it came, or NULL */
    attn_tensor attn_mask; /* over (N, H, L, S) or its last axes, as the attention broadcasts */
    attni_data_rule data_rule;
} attni_mha_problem;

/* A projection's tensors that are not of the score type: its product reads and writes copies. */
typedef struct attni_mha_copies {
    bool widens_input;
    bool narrows_output;
    bool widens_bias;
    attn_tensor input; /* (N, rows, features) as stored; copies are dense, in its order of axes */
    attn_tensor output;
    size_t input_offset; /* in the projection's scratch memory */
    size_t output_offset;
    size_t bias_offset;
    size_t product_offset;
} attni_mha_copies;

/* Where the pieces of a forward call lie in its scratch memory, or, where it saves, those that a
 * backward pass needs in what is saved. */
typedef struct attni_mha_plan {
    attn_tensor query;       /* (N, H, L, D) */
    attn_tensor key;         /* (N, Hk, S, D) */
    attn_tensor value;       /* (N, Hk, S, Dv) */
    attn_tensor context;     /* (N, H, L, Dv) */
    attn_tensor raw_query;   /* what is normalised: query itself, but where that is saved */
    attn_tensor raw_key;     /* likewise */
    attn_tensor lse;         /* (N, H, L), saved; rank 0: there is none */
    attn_tensor extra_key;   /* (N, Hk, T - S, D), the same memory for all batches */
    attn_tensor extra_value; /* (N, Hk, T - S, Dv) */
    size_t query_offset;
    size_t key_offset;
    size_t value_offset;
    size_t context_offset;
    size_t raw_query_offset;
    size_t raw_key_offset;
    size_t lse_offset;
    size_t extra_key_offset;
    size_t extra_value_offset;
    size_t shared_offset; /* the products' and the attention's own scratch, one after the other */

    /* Without the addresses of the four pieces above. */
    attni_gemm_call projections[ATTNI_NUM_PROJECTIONS];
    attni_mha_copies copies[ATTNI_NUM_PROJECTIONS];
    size_t projection_offsets[ATTNI_NUM_PROJECTIONS]; /* of their scratch in the shared one */
    bool wants_threads;                               /* to project */
    bool is_batch_major;                              /* as in the problem */
    attni_norm_problem query_norm;
    attni_norm_problem key_norm;
    attni_rope_problem query_rope;
    attni_rope_problem key_rope;
    attni_append_problem append;
    attni_sdpa_problem attention;
    attni_sdpa_plan attention_plan;
    attni_layout layout;
    attni_layout saved;
} attni_mha_plan;

/* mha_parameters.c: the name of the state_dict parameter that holds a slot. */
const char *attni_mha_slot_name(const attn_mha *layer, int32_t slot);

/* mha_slots.c: memory for copied slots [first, first + count) that the layer has, not yet filled; all
 * or none. The layer is not changed. */
attn_status attni_mha_allocate_slots(const attn_mha *layer, int32_t first, int32_t count,
                                     attni_mha_slot *fresh);

/* mha_slots.c: puts fresh slots in place of slots [first, first + count), and frees those. */
void attni_mha_replace_slots(attn_mha *layer, int32_t first, int32_t count,
                             const attni_mha_slot *fresh);

/* mha_slots.c: frees what the slot owns; its view stays. */
void attni_mha_free_slot(const attn_mha *layer, attni_mha_slot *slot);

/* mha_parameters.c: how many parameters a layer lists. */
int64_t attni_mha_count_listed(const attn_mha *layer);

/* mha_parameters.c: the name and shape of listed parameter `index`; NULL past the last. */
const char *attni_mha_listed_parameter(const attn_mha *layer, int64_t index, attn_tensor *shape);

/* mha_parameters.c: the part of each slot in a tensor of the shape of listed parameter `index`;
 * other parts stay as they are. */
void attni_mha_divide(const attn_mha *layer, int64_t index, const attn_tensor *values,
                      attn_tensor parts[ATTNI_NUM_SLOTS]);

/* mha_check.c: every argument error of a call but those of the attention inside, which the plan
 * finds, of saved, and overlap. */
attn_status attni_mha_check(const attni_mha_request *request, attni_mha_problem *problem);

/* mha_check.c: a tensor in one of the shapes of attention.mask as the attention inside sees it. */
attn_status attni_mha_view_mask(const attni_mha_problem *problem, const char *name,
                                const attn_tensor *mask, attn_tensor *view);

/* mha_starts.c: query_starts by themselves, and what follows for the axes of sequences. */
attn_status attni_mha_check_starts(attni_mha_problem *problem);

/* mha_starts.c: the rows of a sequence, in its batch of query or of what is projected of key. */
attni_interval attni_mha_rows_of(const attni_mha_problem *problem, int64_t sequence, int64_t rows);

/* mha_starts.c: the rows of all sequences together: all, or from the first start to the last. */
attni_interval attni_mha_all_rows(const attni_mha_problem *problem);

/* mha_cache.c: whether the call stores nothing, and attends to what is in the cache. */
bool attni_mha_only_reads(const attni_mha_problem *problem, const attn_tensor *key,
                          const attn_tensor *value);

/* mha_cache.c: the cache's errors by itself, and those of its shapes beside the layer and the call;
 * leaves S. */
attn_status attni_mha_check_cache(attni_mha_problem *problem);

/* mha_cache.c: how the rows of a plan are stored, and every error that is left. */
attn_status attni_mha_plan_append(const attni_mha_problem *problem, attni_mha_plan *plan);

/* mha_cache.c: stores what is projected. */
attn_status attni_mha_append(attn_context *context, const attni_mha_problem *problem,
                             attni_mha_plan *plan);

/* mha_cache.c: the column of key_padding_mask where new row `row` of a sequence stands. */
int64_t attni_mha_column_of(const attni_mha_problem *problem, const attni_mha_plan *plan,
                            int64_t sequence, int64_t row);

/* mha_positions.c: how the queries and keys of a plan are normalised and rotated, and every error of
 * rope. */
attn_status attni_mha_plan_positions(const attni_mha_problem *problem, attni_mha_plan *plan);

/* mha_positions.c: normalises and rotates what is projected, in place but where that is saved. */
attn_status attni_mha_position(attn_context *context, const attni_mha_problem *problem,
                               attni_mha_plan *plan);

enum {
    ATTNI_MHA_MOST_OUTPUTS = 20,
    ATTNI_MHA_MOST_INPUTS = 24 + ATTNI_KV_TENSORS + ATTNI_NUM_SLOTS
};

/* What a call writes and what it reads. */
typedef struct attni_mha_tensors {
    attni_argument outputs[ATTNI_MHA_MOST_OUTPUTS];
    attni_argument inputs[ATTNI_MHA_MOST_INPUTS];
    int32_t num_outputs;
    int32_t num_inputs;
    attn_tensor saved; /* as bytes */
} attni_mha_tensors;

/* mha_overlap.c: adds a tensor unless it is NULL. */
void attni_mha_list_output(attni_mha_tensors *list, const char *name, const attn_tensor *tensor);
void attni_mha_list_input(attni_mha_tensors *list, const char *name, const attn_tensor *tensor);

/* mha_overlap.c: adds what a call reads, beside what is saved: query, key, value, options,
 * parameters. Views were checked by then: a wrong rank would be read past its axes. */
void attni_mha_list_read(const attni_mha_problem *problem, attni_mha_tensors *list);

/* mha_overlap.c: the bytes that are saved as a tensor of the list. */
const attn_tensor *attni_mha_saved_tensor(const attni_mha_problem *problem,
                                          const attni_mha_plan *plan, attni_mha_tensors *list);

/* mha_overlap.c: no output touches another tensor, nor do the bytes of workspace that are needed
 * touch any. */
attn_status attni_mha_check_apart(const attni_mha_tensors *list, const void *workspace,
                                  size_t workspace_bytes);

/* mha_overlap.c: whether all of that is so of a planned forward call. */
attn_status attni_mha_check_overlap(const attni_mha_problem *problem, const attni_mha_plan *plan,
                                    const void *workspace, size_t workspace_bytes);

/* projection.c: the weight of projection 0 to 3: query, key, value, output. */
const attni_mha_slot *attni_projection_weight(const attn_mha *layer, int32_t projection);

/* projection.c: plans y = x W^T + b for x (N, L, in) and y (N, L or more, out), by `backend`. */
void attni_projection_plan(const attni_mha_problem *problem, int32_t projection, int32_t backend,
                           const attni_kernel_set *kernels, const attn_tensor *x,
                           const attn_tensor *y, attni_mha_plan *plan);

/* projection.c: the scratch memory that a planned projection needs. */
void attni_projection_add_scratch(const attn_mha *layer, int32_t projection, attni_mha_plan *plan,
                                  attni_layout *layout);

/* projection.c: projections [first, first + count) of a plan whose addresses are complete. */
attn_status attni_projection_run(attn_context *context, const attn_mha *layer, attni_mha_plan *plan,
                                 int32_t first, int32_t count, char *scratch);

/* mha_plan.c */
attn_status attni_mha_make_plan(const attn_context *context, const attni_mha_problem *problem,
                                attni_mha_plan *plan);

/* mha_plan.c: what the attention inside a checked call is asked, without its output's data; the
 * views are where its tensors point to. */
typedef struct attni_mha_attention {
    attn_tensor views[6]; /* query, key, value, output, extra keys and values */
    attni_sdpa_request request;
} attni_mha_attention;
void attni_mha_ask_attention(const attni_mha_problem *problem, const attni_mha_plan *plan,
                             attni_mha_attention *attention);

/* mha_plan.c: key_padding_mask as one of the attention's masks. */
attni_mask attni_mha_padding_mask(const attni_mha_problem *problem);

/* mha_plan.c: whether what is saved, where something is, is memory of the size and alignment that a
 * plan needs. */
attn_status attni_mha_check_saved(const attni_mha_problem *problem, const attni_mha_plan *plan);

/* mha_plan.c: the heads of a plan and their memory alone. */
attn_status attni_mha_plan_heads(const attni_mha_problem *problem, attni_mha_plan *plan);

/* mha_plan.c: heads (N, H, rows, features) as the projections see them: (N, rows, H * features). */
attn_tensor attni_mha_merged(const attn_tensor *heads);

/* mha_plan.c: heads as the attention and its options see them: without N where the call has none. */
attn_tensor attni_mha_batched(const attni_mha_problem *problem, const attn_tensor *heads);

/* mha_plan.c: nothing is written, so that nothing need be computed. */
bool attni_mha_is_idle(const attni_mha_problem *problem);

/* mha_forward.c: whether key_padding_mask excludes a row of key and value. */
bool attni_mha_is_padding(const attni_mha_problem *problem, const attni_mha_plan *plan,
                          int64_t batch, int64_t row);

/* mha_forward.c: a row of all heads, cleared. */
void attni_mha_clear_row(const attn_tensor *heads, int64_t batch, int64_t row);

/* mha_forward.c: tells a plan where its pieces are; `scratch` is a block of its layout. */
void attni_mha_place(const attni_mha_problem *problem, attni_mha_plan *plan, char *scratch);

/* mha_forward.c: the extra columns of a plan that is placed. */
void attni_mha_fill_extra_columns(const attni_mha_problem *problem, const attni_mha_plan *plan);

/* mha_forward.c: computes; `scratch` is a block of the plan's layout. */
attn_status attni_mha_run(attn_context *context, const attni_mha_problem *problem,
                          attni_mha_plan *plan, char *scratch);

#endif

-- SPDX-License-Identifier: BSD-3-Clause
-- The C declarations, all that the headers have, and the shared library they belong to.
-- tests/check_declarations.lua lets a C compiler compare them with the installed headers.

local ffi = require "ffi"

local abi = {}

abi.declarations = [[
typedef int32_t attn_status;

enum attn_status_code {
    ATTN_OK = 0,
    ATTN_ERROR_NULL = 1,
    ATTN_ERROR_VALUE = 2,
    ATTN_ERROR_SHAPE = 3,
    ATTN_ERROR_DTYPE = 4,
    ATTN_ERROR_OVERLAP = 5,
    ATTN_ERROR_OVERFLOW = 6,
    ATTN_ERROR_PARAMETER = 7,
    ATTN_ERROR_WORKSPACE = 8,
    ATTN_ERROR_MEMORY = 9,
    ATTN_ERROR_THREAD = 10,
    ATTN_ERROR_UNSUPPORTED = 11,
    ATTN_ERROR_BLAS = 12,
    ATTN_ERROR_SELFTEST = 13
};

const char *attn_status_name(attn_status status);
const char *attn_status_text(attn_status status);
const char *attn_last_error(void);
size_t attn_last_error_copy(char *buffer, size_t buffer_bytes);
attn_status attn_error_set(attn_status status, const char *detail);
int32_t attn_version(void);
const char *attn_version_string(void);
const char *attn_build_info(void);

enum attn_tensor_constants { ATTN_MAX_RANK = 8 };

enum attn_dtype {
    ATTN_DTYPE_INVALID = 0,
    ATTN_DTYPE_FLOAT32 = 1,
    ATTN_DTYPE_FLOAT64 = 2,
    ATTN_DTYPE_BOOL = 3,
    ATTN_DTYPE_INT64 = 4,
    ATTN_DTYPE_BFLOAT16 = 5,
    ATTN_DTYPE_FLOAT16 = 6,
    ATTN_DTYPE_INT32 = 7,
    ATTN_DTYPE_INT8 = 8,
    ATTN_DTYPE_UINT8 = 9,
    ATTN_DTYPE_FLOAT8_E4M3 = 10,
    ATTN_DTYPE_FLOAT8_E5M2 = 11,
    ATTN_DTYPE_INT4X2 = 12,
    ATTN_DTYPE_Q8_0 = 13,
    ATTN_DTYPE_Q4_0 = 14,
    ATTN_DTYPE_UINT4X2 = 15
};

typedef struct attn_tensor {
    void *data;
    int32_t dtype;
    int32_t rank;
    int64_t shape[8];
    int64_t strides[8];
} attn_tensor;

size_t attn_dtype_size_bytes(int32_t dtype);
int32_t attn_dtype_values(int32_t dtype);
attn_status attn_tensor_init(attn_tensor *tensor, void *data, int32_t dtype, int32_t rank,
                             const int64_t *shape);
attn_status attn_tensor_init_strided(attn_tensor *tensor, void *data, int32_t dtype, int32_t rank,
                                     const int64_t *shape, const int64_t *strides);
attn_status attn_tensor_count(const attn_tensor *tensor, int64_t *count);
int32_t attn_tensor_is_contiguous(const attn_tensor *tensor);
attn_status attn_tensor_transpose(const attn_tensor *tensor, int32_t axis_a, int32_t axis_b,
                                  attn_tensor *view);
attn_status attn_tensor_slice(const attn_tensor *tensor, int32_t axis, int64_t start,
                              int64_t length, int64_t step, attn_tensor *view);
attn_status attn_tensor_select(const attn_tensor *tensor, int32_t axis, int64_t index,
                               attn_tensor *view);
attn_status attn_tensor_split_heads(const attn_tensor *tensor, int64_t num_heads,
                                    attn_tensor *view);
attn_status attn_tensor_merge_heads(const attn_tensor *tensor, attn_tensor *view);

enum attn_engine { ATTN_ENGINE_AUTO = 0, ATTN_ENGINE_BLAS = 1, ATTN_ENGINE_FUSED = 2 };
enum attn_gemm { ATTN_GEMM_AUTO = 0, ATTN_GEMM_BLAS = 1, ATTN_GEMM_NATIVE = 2 };

typedef struct attn_context attn_context;
typedef void (*attn_task_fn)(void *data, int64_t index);
typedef int32_t (*attn_parallel_for_fn)(void *state, int64_t count, attn_task_fn task, void *data);
typedef void *(*attn_allocate_fn)(void *state, size_t bytes, size_t alignment);
typedef void (*attn_deallocate_fn)(void *state, void *memory, size_t bytes, size_t alignment);

typedef struct attn_context_config {
    uint64_t struct_size;
    int32_t num_threads;
    int32_t parallel_for_width;
    int32_t engine;
    int32_t gemm;
    const char *kernels;
    attn_parallel_for_fn parallel_for;
    void *parallel_for_state;
    attn_allocate_fn allocate;
    attn_deallocate_fn deallocate;
    void *allocator_state;
    int32_t float32_weights;
    int32_t reserved;
} attn_context_config;

typedef struct attn_context_info {
    uint64_t struct_size;
    int32_t num_threads;
    int32_t engine;
    int32_t gemm;
    int32_t attention_gemm;
    int32_t projection_gemm;
    int32_t blas_is_serial;
    const char *kernels;
    const char *blas;
} attn_context_info;

attn_status attn_context_create(const attn_context_config *config, attn_context **context);
attn_status attn_context_start(attn_context *context);
attn_status attn_context_allocate(attn_context *context, size_t bytes, void **memory);
void attn_context_deallocate(attn_context *context, void *memory, size_t bytes);
void attn_context_destroy(attn_context *context);
attn_status attn_context_describe(attn_context *context, attn_context_info *info);
const char *attn_kernels_name(int32_t index);

enum attn_mask_kind {
    ATTN_MASK_NONE = 0,
    ATTN_MASK_ADDITIVE = 1,
    ATTN_MASK_BOOL_INCLUDE = 2,
    ATTN_MASK_BOOL_EXCLUDE = 3
};

typedef struct attn_softmax_params {
    uint64_t struct_size;
    int32_t mask_kind;
    int32_t reserved;
    const attn_tensor *mask;
    const attn_tensor *lengths;
    const attn_tensor *lse;
} attn_softmax_params;

attn_status attn_softmax(attn_context *context, const attn_tensor *input,
                         const attn_softmax_params *params, const attn_tensor *output,
                         void *workspace, size_t workspace_bytes);
attn_status attn_softmax_workspace_bytes(attn_context *context, const attn_tensor *input,
                                         const attn_softmax_params *params,
                                         const attn_tensor *output, size_t *bytes);

typedef struct attn_kv {
    uint64_t struct_size;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *page_table;
    const attn_tensor *page_starts;
    const attn_tensor *starts;
    const attn_tensor *lengths;
    const attn_tensor *key_scale;
    const attn_tensor *value_scale;
    const attn_tensor *key_zero;
    const attn_tensor *value_zero;
} attn_kv;

typedef struct attn_kv_append_params {
    uint64_t struct_size;
    const attn_tensor *starts;
    const attn_tensor *positions;
} attn_kv_append_params;

attn_status attn_kv_append(attn_context *context, const attn_kv *kv, const attn_tensor *key,
                           const attn_tensor *value, const attn_kv_append_params *params);

enum attn_sdpa_set { ATTN_SDPA_SET_SCALE = 1, ATTN_SDPA_SET_WINDOW = 2 };

enum attn_normalizer {
    ATTN_NORMALIZER_SOFTMAX = 0,
    ATTN_NORMALIZER_SIGMOID = 1,
    ATTN_NORMALIZER_LINEAR = 2
};

enum attn_score_stage {
    ATTN_SCORE_SCALED = 0,
    ATTN_SCORE_CAPPED = 1,
    ATTN_SCORE_MASKED = 2
};

enum attn_block {
    ATTN_BLOCK_HIDDEN = 0,
    ATTN_BLOCK_VISIBLE = 1,
    ATTN_BLOCK_MASKED = 2
};

enum attn_qk_norm {
    ATTN_QK_NORM_NONE = 0,
    ATTN_QK_NORM_HEAD = 1,
    ATTN_QK_NORM_ALL_HEADS = 2
};

enum attn_sdpa_pack {
    ATTN_SDPA_PACK_QUERY = 1,
    ATTN_SDPA_PACK_KEY = 2,
    ATTN_SDPA_PACK_VALUE = 4,
    ATTN_SDPA_PACK_OUTPUT = 8
};

typedef struct attn_sdpa_report {
    uint64_t struct_size;
    int32_t engine;
    int32_t gemm;
    int32_t depends_on_blas_threads;
    int32_t packs;
    int64_t row_block;
    int64_t num_blocks;
    uint64_t workspace_bytes;
    const char *kernels;
    const char *reason;
} attn_sdpa_report;

typedef struct attn_dropout {
    uint64_t struct_size;
    double probability;
    uint64_t seed;
    uint64_t offset;
    int64_t batch;
    int64_t head;
    int64_t row;
    int64_t column;
} attn_dropout;

typedef struct attn_sdpa_params {
    uint64_t struct_size;
    int32_t set;
    int32_t is_causal;
    double scale;
    double softcap;
    int64_t window_left;
    int64_t window_right;
    int32_t enable_gqa;
    int32_t align_end;
    int32_t normalizer;
    int32_t mask_kind;
    const attn_tensor *mask;
    const attn_tensor *bias;
    const attn_tensor *query_offset;
    const attn_tensor *key_lengths;
    const attn_tensor *alibi_slopes;
    const attn_tensor *sinks;
    const attn_tensor *lse;
    const attn_tensor *weights;
    attn_sdpa_report *report;
    const attn_kv *kv;
    const attn_tensor *query_starts;
    const attn_tensor *scores;
    int32_t scores_stage;
    int32_t reserved;
    const attn_tensor *mask_start;
    const attn_tensor *position_bias;
    const attn_tensor *block_mask;
    int64_t block_rows;
    int64_t block_columns;
    const attn_dropout *dropout;
} attn_sdpa_params;

attn_status attn_sdpa(attn_context *context, const attn_tensor *query, const attn_tensor *key,
                      const attn_tensor *value, const attn_sdpa_params *params,
                      const attn_tensor *output, void *workspace, size_t workspace_bytes);
attn_status attn_sdpa_workspace_bytes(attn_context *context, const attn_tensor *query,
                                      const attn_tensor *key, const attn_tensor *value,
                                      const attn_sdpa_params *params, const attn_tensor *output,
                                      size_t *bytes);
attn_status attn_sdpa_explain(attn_context *context, const attn_tensor *query,
                              const attn_tensor *key, const attn_tensor *value,
                              const attn_sdpa_params *params, const attn_tensor *output,
                              attn_sdpa_report *report);

typedef struct attn_sdpa_outputs {
    uint64_t struct_size;
    attn_tensor output;
    attn_tensor lse;
    attn_tensor weights;
    attn_tensor averaged_weights;
    attn_tensor scores;
} attn_sdpa_outputs;

attn_status attn_sdpa_describe_outputs(const attn_tensor *query, const attn_tensor *key,
                                       const attn_tensor *value, const attn_sdpa_params *params,
                                       attn_sdpa_outputs *outputs);

typedef struct attn_sdpa_gradients {
    uint64_t struct_size;
    int32_t accumulate;
    int32_t reserved;
    const attn_tensor *output;
    const attn_tensor *lse;
    const attn_tensor *weights;
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *mask;
    const attn_tensor *bias;
    const attn_tensor *position_bias;
    const attn_tensor *alibi_slopes;
    const attn_tensor *sinks;
} attn_sdpa_gradients;

attn_status attn_sdpa_backward(attn_context *context, const attn_tensor *query,
                               const attn_tensor *key, const attn_tensor *value,
                               const attn_sdpa_params *params, const attn_tensor *output,
                               const attn_sdpa_gradients *gradients, void *workspace,
                               size_t workspace_bytes);
attn_status attn_sdpa_backward_workspace_bytes(attn_context *context, const attn_tensor *query,
                                               const attn_tensor *key, const attn_tensor *value,
                                               const attn_sdpa_params *params,
                                               const attn_tensor *output,
                                               const attn_sdpa_gradients *gradients,
                                               size_t *bytes);

typedef struct attn_sdpa_backward_report {
    uint64_t struct_size;
    int32_t whole_heads;
    int32_t staged;
    int64_t num_items;
    int64_t row_block;
    int64_t key_block;
    uint64_t workspace_bytes;
    const char *kernels;
    const char *reason;
} attn_sdpa_backward_report;

attn_status attn_sdpa_backward_explain(attn_context *context, const attn_tensor *query,
                                       const attn_tensor *key, const attn_tensor *value,
                                       const attn_sdpa_params *params, const attn_tensor *output,
                                       const attn_sdpa_gradients *gradients,
                                       attn_sdpa_backward_report *report);

typedef struct attn_merge_params {
    uint64_t struct_size;
    const attn_tensor *sinks;
} attn_merge_params;

attn_status attn_sdpa_merge(attn_context *context, int64_t count, const attn_tensor *outputs,
                            const attn_tensor *lses, const attn_merge_params *params,
                            const attn_tensor *output, const attn_tensor *lse);

typedef struct attn_rope_params {
    uint64_t struct_size;
    int64_t rotary_dim;
    double base;
    double magnitude;
    int32_t interleaved;
    int32_t inverse;
    const attn_tensor *frequencies;
    const attn_tensor *cos;
    const attn_tensor *sin;
    const attn_tensor *positions;
    const attn_tensor *lengths;
} attn_rope_params;

attn_status attn_rope(attn_context *context, const attn_tensor *input,
                      const attn_rope_params *params, const attn_tensor *output);

typedef struct attn_rms_norm_params {
    uint64_t struct_size;
    const attn_tensor *weight;
    double epsilon;
    double weight_offset;
} attn_rms_norm_params;

attn_status attn_rms_norm(attn_context *context, const attn_tensor *input,
                          const attn_rms_norm_params *params, const attn_tensor *output);

typedef struct attn_mha attn_mha;

typedef struct attn_mha_config {
    uint64_t struct_size;
    int64_t embed_dim;
    int64_t num_heads;
    int64_t kdim;
    int64_t vdim;
    int64_t qdim;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t value_head_dim;
    int32_t dtype;
    int32_t no_bias;
    int32_t add_bias_kv;
    int32_t add_zero_attn;
    int32_t batch_first;
    int32_t parameter_dtype;
    int32_t qk_norm;
    int32_t reserved;
    double qk_norm_epsilon;
    double qk_norm_weight_offset;
} attn_mha_config;

typedef struct attn_mha_load_params {
    uint64_t struct_size;
    const attn_tensor *scale;
} attn_mha_load_params;

typedef struct attn_mha_init_params {
    uint64_t struct_size;
    uint64_t seed;
} attn_mha_init_params;

typedef struct attn_mha_params {
    uint64_t struct_size;
    int32_t key_padding_mask_kind;
    int32_t reserved;
    const attn_tensor *key_padding_mask;
    const attn_sdpa_params *attention;
    const attn_kv *cache;
    const attn_rope_params *rope;
    void *saved;
    uint64_t saved_bytes;
} attn_mha_params;

typedef struct attn_mha_report {
    uint64_t struct_size;
    int32_t projection_gemm;
    int32_t depends_on_blas_threads;
    uint64_t workspace_bytes;
    const char *kernels;
    attn_sdpa_report *attention;
} attn_mha_report;

typedef struct attn_mha_outputs {
    uint64_t struct_size;
    attn_tensor output;
    attn_tensor lse;
    attn_tensor weights;
    attn_tensor averaged_weights;
    attn_tensor scores;
} attn_mha_outputs;

attn_status attn_mha_create(attn_context *context, const attn_mha_config *config,
                            attn_mha **layer);
attn_status attn_mha_describe(const attn_mha *layer, attn_mha_config *config);
void attn_mha_destroy(attn_mha *layer);
attn_status attn_mha_parameter_count(const attn_mha *layer, int64_t *count);
attn_status attn_mha_parameter_describe(const attn_mha *layer, int64_t index, const char **name,
                                        attn_tensor *shape);
attn_status attn_mha_load_parameter(attn_context *context, attn_mha *layer, const char *name,
                                    const attn_tensor *values,
                                    const attn_mha_load_params *params);
attn_status attn_mha_bind_parameter(attn_mha *layer, const char *name, const attn_tensor *values);
attn_status attn_mha_read_parameter(attn_context *context, const attn_mha *layer,
                                    const char *name, const attn_tensor *values);
attn_status attn_mha_init_parameters(attn_context *context, attn_mha *layer,
                                     const attn_mha_init_params *params);
attn_status attn_mha_forward(attn_context *context, const attn_mha *layer,
                             const attn_tensor *query, const attn_tensor *key,
                             const attn_tensor *value, const attn_mha_params *params,
                             const attn_tensor *output, void *workspace, size_t workspace_bytes);
attn_status attn_mha_workspace_bytes(attn_context *context, const attn_mha *layer,
                                     const attn_tensor *query, const attn_tensor *key,
                                     const attn_tensor *value, const attn_mha_params *params,
                                     const attn_tensor *output, size_t *bytes);
attn_status attn_mha_explain(attn_context *context, const attn_mha *layer,
                             const attn_tensor *query, const attn_tensor *key,
                             const attn_tensor *value, const attn_mha_params *params,
                             const attn_tensor *output, attn_mha_report *report);
attn_status attn_mha_describe_outputs(const attn_mha *layer, const attn_tensor *query,
                                      const attn_tensor *key, const attn_tensor *value,
                                      const attn_mha_params *params, attn_mha_outputs *outputs);

typedef struct attn_mha_gradients {
    uint64_t struct_size;
    int32_t accumulate;
    int32_t reserved;
    const attn_tensor *output;
    const attn_tensor *query;
    const attn_tensor *key;
    const attn_tensor *value;
    const attn_tensor *parameters;
    int64_t num_parameters;
    const attn_sdpa_gradients *attention;
} attn_mha_gradients;

attn_status attn_mha_saved_bytes(attn_context *context, const attn_mha *layer,
                                 const attn_tensor *query, const attn_tensor *key,
                                 const attn_tensor *value, const attn_mha_params *params,
                                 size_t *bytes);
attn_status attn_mha_backward(attn_context *context, const attn_mha *layer,
                              const attn_tensor *query, const attn_tensor *key,
                              const attn_tensor *value, const attn_mha_params *params,
                              const attn_mha_gradients *gradients, void *workspace,
                              size_t workspace_bytes);
attn_status attn_mha_backward_workspace_bytes(attn_context *context, const attn_mha *layer,
                                              const attn_tensor *query, const attn_tensor *key,
                                              const attn_tensor *value,
                                              const attn_mha_params *params,
                                              const attn_mha_gradients *gradients, size_t *bytes);

typedef void (*attn_selftest_visit_fn)(void *state, const char *check, attn_status status,
                                       const char *detail);

typedef struct attn_selftest_params {
    uint64_t struct_size;
    attn_selftest_visit_fn visit;
    void *visit_state;
} attn_selftest_params;

attn_status attn_selftest(attn_context *context, const attn_selftest_params *params);
]]

ffi.cdef(abi.declarations)

-- The name carries the version of the ABI that is declared above.
abi.library = ffi.load(os.getenv("ATTENTION_LIBRARY") or "libattention.so.0")

return abi

// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Library;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;

/**
 * libattention's C interface, as far as this package uses it; names and order are the headers'. The
 * objects of the package are passed themselves, not their addresses, so that {@link NativeCall} sees
 * everything that a call uses.
 */
interface Abi extends Library {
    Abi LIBRARY = NativeCall.open(System.getProperty("attention.library", "attention"));

    /** A function that changes the layer it is given, and so needs it alone. */
    @Retention(RetentionPolicy.RUNTIME)
    @interface ChangesLayer {}

    int OK = 0;
    int ERROR_VALUE = 2;
    int ERROR_PARAMETER = 7;
    int MAX_RANK = 8;
    int MASK_ADDITIVE = 1;
    int MASK_BOOL_INCLUDE = 2;
    int MASK_BOOL_EXCLUDE = 3;
    int SET_SCALE = 1;
    int SET_WINDOW = 2;

    @FieldOrder({"data", "dtype", "rank", "shape", "strides"})
    final class TensorView extends Structure {
        public Pointer data;
        public int dtype;
        public int rank;
        public long[] shape = new long[MAX_RANK];
        public long[] strides = new long[MAX_RANK];
    }

    @FieldOrder({
        "struct_size", "num_threads", "parallel_for_width", "engine", "gemm", "kernels",
        "parallel_for", "parallel_for_state", "allocate", "deallocate", "allocator_state",
        "float32_weights", "reserved"
    })
    final class ContextConfig extends Structure {
        public long struct_size = size();
        public int num_threads;
        public int parallel_for_width;
        public int engine;
        public int gemm;
        public String kernels;
        public Pointer parallel_for;
        public Pointer parallel_for_state;
        public Pointer allocate;
        public Pointer deallocate;
        public Pointer allocator_state;
        public int float32_weights;
        public int reserved;
    }

    @FieldOrder({
        "struct_size", "num_threads", "engine", "gemm", "attention_gemm", "projection_gemm",
        "blas_is_serial", "kernels", "blas"
    })
    final class ContextInfo extends Structure {
        public long struct_size = size();
        public int num_threads;
        public int engine;
        public int gemm;
        public int attention_gemm;
        public int projection_gemm;
        public int blas_is_serial;
        public String kernels;
        public String blas;
    }

    @FieldOrder({
        "struct_size", "key", "value", "page_table", "page_starts", "starts", "lengths",
        "key_scale", "value_scale", "key_zero", "value_zero"
    })
    final class Kv extends Structure {
        public long struct_size = size();
        public Pointer key;
        public Pointer value;
        public Pointer page_table;
        public Pointer page_starts;
        public Pointer starts;
        public Pointer lengths;
        public Pointer key_scale;
        public Pointer value_scale;
        public Pointer key_zero;
        public Pointer value_zero;
    }

    @FieldOrder({"struct_size", "starts", "positions"})
    final class KvAppendParams extends Structure {
        public long struct_size = size();
        public Pointer starts;
        public Pointer positions;
    }

    @FieldOrder({
        "struct_size", "set", "is_causal", "scale", "softcap", "window_left", "window_right",
        "enable_gqa", "align_end", "normalizer", "mask_kind", "mask", "bias", "query_offset",
        "key_lengths", "alibi_slopes", "sinks", "lse", "weights", "report",
        "kv", "query_starts", "scores", "scores_stage", "reserved", "mask_start", "position_bias",
        "block_mask", "block_rows", "block_columns", "dropout"
    })
    final class SdpaParams extends Structure {
        public long struct_size = size();
        public int set;
        public int is_causal;
        public double scale;
        public double softcap;
        public long window_left;
        public long window_right;
        public int enable_gqa;
        public int align_end;
        public int normalizer;
        public int mask_kind;
        public Pointer mask;
        public Pointer bias;
        public Pointer query_offset;
        public Pointer key_lengths;
        public Pointer alibi_slopes;
        public Pointer sinks;
        public Pointer lse;
        public Pointer weights;
        public Pointer report;
        public Pointer kv;
        public Pointer query_starts;
        public Pointer scores;
        public int scores_stage;
        public int reserved;
        public Pointer mask_start;
        public Pointer position_bias;
        public Pointer block_mask;
        public long block_rows;
        public long block_columns;
        public Pointer dropout;
    }

    @FieldOrder({
        "struct_size", "probability", "seed", "offset", "batch", "head", "row", "column"
    })
    final class Dropout extends Structure {
        public long struct_size = size();
        public double probability;
        public long seed;
        public long offset;
        public long batch;
        public long head;
        public long row;
        public long column;
    }

    @FieldOrder({
        "struct_size", "engine", "gemm", "depends_on_blas_threads", "packs", "row_block",
        "num_blocks", "workspace_bytes", "kernels", "reason"
    })
    final class SdpaReport extends Structure {
        public long struct_size = size();
        public int engine;
        public int gemm;
        public int depends_on_blas_threads;
        public int packs;
        public long row_block;
        public long num_blocks;
        public long workspace_bytes;
        public String kernels;
        public String reason;
    }

    /** attn_sdpa_outputs and attn_mha_outputs, which have the same fields. */
    @FieldOrder({"struct_size", "output", "lse", "weights", "averaged_weights", "scores"})
    final class Outputs extends Structure {
        public long struct_size = size();
        public TensorView output = new TensorView();
        public TensorView lse = new TensorView();
        public TensorView weights = new TensorView();
        public TensorView averaged_weights = new TensorView();
        public TensorView scores = new TensorView();
    }

    @FieldOrder({
        "struct_size", "accumulate", "reserved", "output", "lse", "weights", "query", "key", "value",
        "mask", "bias", "position_bias", "alibi_slopes", "sinks"
    })
    final class SdpaGradients extends Structure {
        public long struct_size = size();
        public int accumulate;
        public int reserved;
        public Pointer output;
        public Pointer lse;
        public Pointer weights;
        public Pointer query;
        public Pointer key;
        public Pointer value;
        public Pointer mask;
        public Pointer bias;
        public Pointer position_bias;
        public Pointer alibi_slopes;
        public Pointer sinks;
    }

    @FieldOrder({
        "struct_size", "whole_heads", "staged", "num_items", "row_block", "key_block",
        "workspace_bytes", "kernels", "reason"
    })
    final class SdpaBackwardReport extends Structure {
        public long struct_size = size();
        public int whole_heads;
        public int staged;
        public long num_items;
        public long row_block;
        public long key_block;
        public long workspace_bytes;
        public String kernels;
        public String reason;
    }

    @FieldOrder({"struct_size", "sinks"})
    final class MergeParams extends Structure {
        public long struct_size = size();
        public Pointer sinks;
    }

    @FieldOrder({
        "struct_size", "rotary_dim", "base", "magnitude", "interleaved", "inverse", "frequencies",
        "cos", "sin", "positions", "lengths"
    })
    final class RopeParams extends Structure {
        public long struct_size = size();
        public long rotary_dim;
        public double base;
        public double magnitude;
        public int interleaved;
        public int inverse;
        public Pointer frequencies;
        public Pointer cos;
        public Pointer sin;
        public Pointer positions;
        public Pointer lengths;
    }

    @FieldOrder({"struct_size", "weight", "epsilon", "weight_offset"})
    final class RmsNormParams extends Structure {
        public long struct_size = size();
        public Pointer weight;
        public double epsilon;
        public double weight_offset;
    }

    @FieldOrder({
        "struct_size", "embed_dim", "num_heads", "kdim", "vdim", "qdim", "num_kv_heads",
        "head_dim", "value_head_dim", "dtype", "no_bias", "add_bias_kv", "add_zero_attn",
        "batch_first", "parameter_dtype", "qk_norm", "reserved", "qk_norm_epsilon",
        "qk_norm_weight_offset"
    })
    final class MhaConfig extends Structure {
        public long struct_size = size();
        public long embed_dim;
        public long num_heads;
        public long kdim;
        public long vdim;
        public long qdim;
        public long num_kv_heads;
        public long head_dim;
        public long value_head_dim;
        public int dtype;
        public int no_bias;
        public int add_bias_kv;
        public int add_zero_attn;
        public int batch_first;
        public int parameter_dtype;
        public int qk_norm;
        public int reserved;
        public double qk_norm_epsilon;
        public double qk_norm_weight_offset;
    }

    @FieldOrder({
        "struct_size", "key_padding_mask_kind", "reserved", "key_padding_mask", "attention",
        "cache", "rope", "saved", "saved_bytes"
    })
    final class MhaParams extends Structure {
        public long struct_size = size();
        public int key_padding_mask_kind;
        public int reserved;
        public Pointer key_padding_mask;
        public Pointer attention;
        public Pointer cache;
        public Pointer rope;
        public Pointer saved;
        public long saved_bytes;
    }

    @FieldOrder({
        "struct_size", "accumulate", "reserved", "output", "query", "key", "value", "parameters",
        "num_parameters", "attention"
    })
    final class MhaGradients extends Structure {
        public long struct_size = size();
        public int accumulate;
        public int reserved;
        public Pointer output;
        public Pointer query;
        public Pointer key;
        public Pointer value;
        public Pointer parameters;
        public long num_parameters;
        public Pointer attention;
    }

    @FieldOrder({
        "struct_size", "projection_gemm", "depends_on_blas_threads", "workspace_bytes", "kernels",
        "attention"
    })
    final class MhaReport extends Structure {
        public long struct_size = size();
        public int projection_gemm;
        public int depends_on_blas_threads;
        public long workspace_bytes;
        public String kernels;
        public Pointer attention;
    }

    @FieldOrder({"struct_size", "seed"})
    final class MhaInitParams extends Structure {
        public long struct_size = size();
        public long seed;
    }

    int attn_tensor_init_strided(
            TensorView tensor, Pointer data, int dtype, int rank, long[] shape, long[] strides);

    String attn_last_error();

    String attn_status_name(int status);

    String attn_version_string();

    int attn_context_create(ContextConfig config, PointerByReference context);

    int attn_context_start(Context context);

    int attn_context_describe(Context context, ContextInfo info);

    void attn_context_destroy(Pointer context);

    int attn_kv_append(
            Context context, KvPlaces kv, Tensor key, Tensor value, KvAppendOptions params);

    int attn_sdpa(
            Context context,
            Tensor query,
            Tensor key,
            Tensor value,
            SdpaOptions params,
            Tensor output,
            Pointer workspace,
            long workspaceBytes);

    int attn_sdpa_explain(
            Context context,
            Tensor query,
            Tensor key,
            Tensor value,
            SdpaOptions params,
            Tensor output,
            SdpaReport report);

    int attn_sdpa_describe_outputs(
            Tensor query, Tensor key, Tensor value, SdpaOptions params, Outputs outputs);

    int attn_sdpa_backward(
            Context context,
            Tensor query,
            Tensor key,
            Tensor value,
            SdpaOptions params,
            Tensor output,
            attention.SdpaGradients gradients,
            Pointer workspace,
            long workspaceBytes);

    int attn_sdpa_backward_explain(
            Context context,
            Tensor query,
            Tensor key,
            Tensor value,
            SdpaOptions params,
            Tensor output,
            attention.SdpaGradients gradients,
            SdpaBackwardReport report);

    int attn_sdpa_merge(
            Context context,
            long count,
            Tensor.Array outputs,
            Tensor.Array lses,
            MergeOptions params,
            Tensor output,
            Tensor lse);

    int attn_rope(Context context, Tensor input, RopeOptions params, Tensor output);

    int attn_rms_norm(Context context, Tensor input, RmsNormOptions params, Tensor output);

    int attn_mha_create(Context context, MhaConfig config, PointerByReference layer);

    int attn_mha_describe(Multihead layer, MhaConfig config);

    void attn_mha_destroy(Pointer layer);

    int attn_mha_parameter_count(Multihead layer, LongByReference count);

    int attn_mha_parameter_describe(
            Multihead layer, long index, PointerByReference name, TensorView shape);

    @ChangesLayer
    int attn_mha_load_parameter(
            Context context, Multihead layer, String name, Tensor values, Pointer params);

    int attn_mha_read_parameter(Context context, Multihead layer, String name, Tensor values);

    @ChangesLayer
    int attn_mha_init_parameters(Context context, Multihead layer, MhaInitParams params);

    int attn_mha_forward(
            Context context,
            Multihead layer,
            Tensor query,
            Tensor key,
            Tensor value,
            Argument params,
            Tensor output,
            Pointer workspace,
            long workspaceBytes);

    int attn_mha_saved_bytes(
            Context context,
            Multihead layer,
            Tensor query,
            Tensor key,
            Tensor value,
            Multihead.Options params,
            LongByReference bytes);

    int attn_mha_backward(
            Context context,
            Multihead layer,
            Tensor query,
            Tensor key,
            Tensor value,
            Argument params,
            Argument gradients,
            Pointer workspace,
            long workspaceBytes);

    int attn_mha_explain(
            Context context,
            Multihead layer,
            Tensor query,
            Tensor key,
            Tensor value,
            Multihead.Options params,
            Tensor output,
            MhaReport report);

    int attn_mha_describe_outputs(
            Multihead layer,
            Tensor query,
            Tensor key,
            Tensor value,
            Multihead.Options params,
            Outputs outputs);

    int attn_selftest(Context context, Pointer params);

    /**
     * Throws unless the status is OK. The detail belongs to the native thread, so this is to be
     * called where the function was, with nothing in between.
     */
    static void check(int status) {
        if (status != OK) {
            throw new AttentionException(status, LIBRARY.attn_last_error());
        }
    }
}

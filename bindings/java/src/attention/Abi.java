// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;
import com.sun.jna.ptr.PointerByReference;

/** libattention's C interface, as far as this package uses it; names and order are the headers'. */
interface Abi extends Library {
    Abi LIBRARY = Native.load(System.getProperty("attention.library", "attention"), Abi.class);

    int OK = 0;
    int MAX_RANK = 8;
    int MASK_ADDITIVE = 1;
    int MASK_BOOL_INCLUDE = 2;
    int MASK_BOOL_EXCLUDE = 3;
    long SET_SCALE = 1;
    long SET_WINDOW = 2;
    long ENABLE_GQA = 4;
    int ON = 1;
    int OFF = 2;

    @FieldOrder({"data", "dtype", "rank", "shape", "strides"})
    final class TensorView extends Structure {
        public Pointer data;
        public int dtype;
        public int rank;
        public long[] shape = new long[MAX_RANK];
        public long[] strides = new long[MAX_RANK];
    }

    @FieldOrder({
        "struct_size", "num_threads", "engine", "gemm", "reserved", "kernels", "parallel_for",
        "parallel_for_state", "allocate", "deallocate", "allocator_state"
    })
    final class ContextParams extends Structure {
        public long struct_size = size();
        public int num_threads;
        public int engine;
        public int gemm;
        public int reserved;
        public String kernels;
        public Pointer parallel_for;
        public Pointer parallel_for_state;
        public Pointer allocate;
        public Pointer deallocate;
        public Pointer allocator_state;
    }

    @FieldOrder({
        "struct_size", "flags", "scale", "softcap", "window_left", "window_right", "is_causal",
        "normalizer", "mask_kind", "reserved", "mask", "query_offset", "key_lengths",
        "alibi_slopes", "sinks", "lse", "weights", "report"
    })
    final class SdpaParams extends Structure {
        public long struct_size = size();
        public long flags;
        public double scale;
        public double softcap;
        public long window_left;
        public long window_right;
        public int is_causal;
        public int normalizer;
        public int mask_kind;
        public int reserved;
        public Pointer mask;
        public Pointer query_offset;
        public Pointer key_lengths;
        public Pointer alibi_slopes;
        public Pointer sinks;
        public Pointer lse;
        public Pointer weights;
        public Pointer report;
    }

    @FieldOrder({
        "struct_size", "embed_dim", "num_heads", "kdim", "vdim", "qdim", "num_kv_heads",
        "head_dim", "value_head_dim", "dtype", "bias", "add_bias_kv", "add_zero_attn",
        "batch_first", "reserved"
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
        public int bias;
        public int add_bias_kv;
        public int add_zero_attn;
        public int batch_first;
        public int reserved;
    }

    @FieldOrder({
        "struct_size", "key_padding_mask_kind", "attn_mask_kind", "is_causal",
        "average_attn_weights", "key_padding_mask", "attn_mask", "attn_weights", "attention"
    })
    final class MhaParams extends Structure {
        public long struct_size = size();
        public int key_padding_mask_kind;
        public int attn_mask_kind;
        public int is_causal;
        public int average_attn_weights;
        public Pointer key_padding_mask;
        public Pointer attn_mask;
        public Pointer attn_weights;
        public Pointer attention;
    }

    int attn_tensor_init_strided(
            TensorView tensor, Pointer data, int dtype, int rank, long[] shape, long[] strides);

    String attn_last_error();

    String attn_status_name(int status);

    String attn_version_string();

    int attn_context_create(ContextParams params, PointerByReference context);

    void attn_context_destroy(Pointer context);

    int attn_sdpa(
            Pointer context,
            TensorView query,
            TensorView key,
            TensorView value,
            SdpaParams params,
            TensorView output,
            Pointer workspace,
            long workspaceBytes);

    int attn_mha_create(Pointer context, MhaConfig config, PointerByReference layer);

    void attn_mha_destroy(Pointer layer);

    int attn_mha_load_parameter(Pointer layer, String name, TensorView values);

    int attn_mha_init_parameters(Pointer layer, long seed);

    int attn_mha_forward(
            Pointer context,
            Pointer layer,
            TensorView query,
            TensorView key,
            TensorView value,
            MhaParams params,
            TensorView output,
            Pointer workspace,
            long workspaceBytes);

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

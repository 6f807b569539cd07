// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Structure;

/** Prints the size of each struct and where its fields lie, as layout.c does by the C headers. */
public final class Layout {
    /** Structure keeps its offsets to itself and its subclasses. */
    private static void show(String name, Structure structure) {
        structure.write();
        System.out.println(name + " " + structure.size());
        for (final String field : structure.getClass().getAnnotation(Structure.FieldOrder.class).value()) {
            System.out.println(name + "." + field + " " + offset(structure, field));
        }
    }

    private static int offset(Structure structure, String field) {
        try {
            final var method = Structure.class.getDeclaredMethod("fieldOffset", String.class);
            method.setAccessible(true);
            return (int) method.invoke(structure, field);
        } catch (ReflectiveOperationException problem) {
            throw new IllegalStateException(problem);
        }
    }

    public static void main(String[] arguments) {
        show("attn_tensor", new Abi.TensorView());
        show("attn_context_config", new Abi.ContextConfig());
        show("attn_context_info", new Abi.ContextInfo());
        show("attn_kv", new Abi.Kv());
        show("attn_kv_append_params", new Abi.KvAppendParams());
        show("attn_sdpa_params", new Abi.SdpaParams());
        show("attn_dropout", new Abi.Dropout());
        show("attn_sdpa_report", new Abi.SdpaReport());
        show("attn_sdpa_outputs", new Abi.Outputs());
        show("attn_sdpa_gradients", new Abi.SdpaGradients());
        show("attn_sdpa_backward_report", new Abi.SdpaBackwardReport());
        show("attn_merge_params", new Abi.MergeParams());
        show("attn_rope_params", new Abi.RopeParams());
        show("attn_rms_norm_params", new Abi.RmsNormParams());
        show("attn_mha_config", new Abi.MhaConfig());
        show("attn_mha_params", new Abi.MhaParams());
        show("attn_mha_gradients", new Abi.MhaGradients());
        show("attn_mha_report", new Abi.MhaReport());
        show("attn_mha_outputs", new Abi.Outputs());
        show("attn_mha_init_params", new Abi.MhaInitParams());
    }
}

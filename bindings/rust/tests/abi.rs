// SPDX-License-Identifier: BSD-3-Clause
//! The declarations of `sys` are those of the installed headers: a C program prints each size,
//! offset and constant.

use std::fmt::Write as _;
use std::mem::{size_of, MaybeUninit};
use std::path::PathBuf;
use std::process::{self, Command};
use std::ptr::addr_of;
use std::{env, fs};

use attention::sys::*;

/// A C expression and its value here.
type Fact = (String, i64);

macro_rules! structs {
    ($($name:ident { $($field:ident),* $(,)? })*) => {{
        let mut facts: Vec<Fact> = Vec::new();
        $(
            facts.push((concat!("sizeof(", stringify!($name), ")").into(), size_of::<$name>() as i64));
            let place = MaybeUninit::<$name>::uninit();
            let base = place.as_ptr();
            $(
                // SAFETY: only the field's address is taken.
                let field = unsafe { addr_of!((*base).$field) };
                facts.push((
                    concat!("offsetof(", stringify!($name), ", ", stringify!($field), ")").into(),
                    field as i64 - base as i64,
                ));
            )*
        )*
        facts
    }};
}

macro_rules! constants {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name).to_string(), $name as i64)),*]
    };
}

fn facts() -> Vec<Fact> {
    let mut facts = structs! {
        attn_tensor { data, dtype, rank, shape, strides }
        attn_context_config {
            struct_size, num_threads, parallel_for_width, engine, gemm, kernels, parallel_for,
            parallel_for_state, allocate, deallocate, allocator_state, float32_weights, reserved,
        }
        attn_context_info {
            struct_size, num_threads, engine, gemm, attention_gemm, projection_gemm,
            blas_is_serial, kernels, blas,
        }
        attn_selftest_params { struct_size, visit, visit_state }
        attn_kv {
            struct_size, key, value, page_table, page_starts, starts, lengths, key_scale, value_scale,
            key_zero, value_zero
        }
        attn_kv_append_params { struct_size, starts, positions }
        attn_sdpa_report {
            struct_size, engine, gemm, depends_on_blas_threads, packs, row_block, num_blocks,
            workspace_bytes, kernels, reason,
        }
        attn_sdpa_params {
            struct_size, set, is_causal, scale, softcap, window_left, window_right, enable_gqa,
            align_end, normalizer, mask_kind, mask, bias, query_offset, key_lengths, alibi_slopes,
            sinks, lse, weights, report, kv, query_starts, scores, scores_stage, reserved,
            mask_start, position_bias, block_mask, block_rows, block_columns, dropout,
        }
        attn_dropout { struct_size, probability, seed, offset, batch, head, row, column }
        attn_sdpa_outputs { struct_size, output, lse, weights, averaged_weights, scores }
        attn_sdpa_gradients {
            struct_size, accumulate, reserved, output, lse, weights, query, key, value, mask, bias,
            position_bias, alibi_slopes, sinks,
        }
        attn_sdpa_backward_report {
            struct_size, whole_heads, staged, num_items, row_block, key_block, workspace_bytes,
            kernels, reason,
        }
        attn_merge_params { struct_size, sinks }
        attn_rope_params {
            struct_size, rotary_dim, base, magnitude, interleaved, inverse, frequencies, cos, sin,
            positions, lengths,
        }
        attn_rms_norm_params { struct_size, weight, epsilon, weight_offset }
        attn_mha_config {
            struct_size, embed_dim, num_heads, kdim, vdim, qdim, num_kv_heads, head_dim,
            value_head_dim, dtype, no_bias, add_bias_kv, add_zero_attn, batch_first,
            parameter_dtype, qk_norm, reserved, qk_norm_epsilon, qk_norm_weight_offset,
        }
        attn_mha_load_params { struct_size, scale }
        attn_mha_init_params { struct_size, seed }
        attn_mha_params {
            struct_size, key_padding_mask_kind, reserved, key_padding_mask, attention, cache, rope,
            saved, saved_bytes,
        }
        attn_mha_gradients {
            struct_size, accumulate, reserved, output, query, key, value, parameters,
            num_parameters, attention,
        }
        attn_mha_report {
            struct_size, projection_gemm, depends_on_blas_threads, workspace_bytes, kernels,
            attention,
        }
        attn_mha_outputs { struct_size, output, lse, weights, averaged_weights, scores }
    };
    let constants: Vec<Fact> = constants![
        ATTN_MAX_RANK,
        ATTN_OK,
        ATTN_ERROR_NULL,
        ATTN_ERROR_VALUE,
        ATTN_ERROR_SHAPE,
        ATTN_ERROR_DTYPE,
        ATTN_ERROR_OVERLAP,
        ATTN_ERROR_OVERFLOW,
        ATTN_ERROR_PARAMETER,
        ATTN_ERROR_WORKSPACE,
        ATTN_ERROR_MEMORY,
        ATTN_ERROR_THREAD,
        ATTN_ERROR_UNSUPPORTED,
        ATTN_ERROR_BLAS,
        ATTN_ERROR_SELFTEST,
        ATTN_DTYPE_INVALID,
        ATTN_DTYPE_FLOAT32,
        ATTN_DTYPE_FLOAT64,
        ATTN_DTYPE_BOOL,
        ATTN_DTYPE_INT64,
        ATTN_DTYPE_BFLOAT16,
        ATTN_DTYPE_FLOAT16,
        ATTN_DTYPE_INT32,
        ATTN_DTYPE_INT8,
        ATTN_DTYPE_UINT8,
        ATTN_DTYPE_INT4X2,
        ATTN_DTYPE_Q8_0,
        ATTN_DTYPE_Q4_0,
        ATTN_DTYPE_UINT4X2,
        ATTN_ENGINE_AUTO,
        ATTN_ENGINE_BLAS,
        ATTN_ENGINE_FUSED,
        ATTN_GEMM_AUTO,
        ATTN_GEMM_BLAS,
        ATTN_GEMM_NATIVE,
        ATTN_MASK_NONE,
        ATTN_MASK_ADDITIVE,
        ATTN_MASK_BOOL_INCLUDE,
        ATTN_MASK_BOOL_EXCLUDE,
        ATTN_SDPA_SET_SCALE,
        ATTN_SDPA_SET_WINDOW,
        ATTN_SDPA_PACK_QUERY,
        ATTN_SDPA_PACK_KEY,
        ATTN_SDPA_PACK_VALUE,
        ATTN_SDPA_PACK_OUTPUT,
        ATTN_NORMALIZER_SOFTMAX,
        ATTN_NORMALIZER_SIGMOID,
        ATTN_NORMALIZER_LINEAR,
        ATTN_SCORE_SCALED,
        ATTN_SCORE_CAPPED,
        ATTN_SCORE_MASKED,
        ATTN_BLOCK_HIDDEN,
        ATTN_BLOCK_VISIBLE,
        ATTN_BLOCK_MASKED,
        ATTN_QK_NORM_NONE,
        ATTN_QK_NORM_HEAD,
        ATTN_QK_NORM_ALL_HEADS,
    ];
    facts.extend(constants);
    facts
}

fn c_program(facts: &[Fact]) -> String {
    let mut source =
        "#include <stdio.h>\n#include <attention/attention.h>\nint main(void) {\n".to_string();
    for (expression, _) in facts {
        writeln!(source, "printf(\"%lld\\n\", (long long)({}));", expression).unwrap();
    }
    source + "}\n"
}

fn stdout_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{:?}: {}", command, error));
    assert!(
        output.status.success(),
        "{:?}: {}",
        command,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn values_in_c(facts: &[Fact]) -> Vec<i64> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (
        folder.join(format!("abi{}.c", process::id())),
        folder.join(format!("abi{}", process::id())),
    );
    fs::write(&source, c_program(facts)).unwrap();
    let flags = stdout_of(Command::new("pkg-config").args(["--cflags", "attention"]));
    stdout_of(
        Command::new("cc")
            .args(flags.split_whitespace())
            .arg(&source)
            .arg("-o")
            .arg(&program),
    );
    let values = stdout_of(&mut Command::new(&program));
    fs::remove_file(source)
        .and(fs::remove_file(program))
        .unwrap();
    values.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn structs_and_constants_are_those_of_the_headers() {
    let facts = facts();
    let values = values_in_c(&facts);
    assert_eq!(values.len(), facts.len());
    for ((expression, here), in_c) in facts.iter().zip(values) {
        assert_eq!(*here, in_c, "{}", expression);
    }
}

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_help.c: what attn-bench --help says.
 */
#include <stddef.h>

#include "bench_commands.h"

const char *const bench_help[] = {
    "attn-bench: times attention of any shape beside the limits of the machine; one JSON object a "
    "line",
    "",
    "  attn-bench sdpa [options]                      scaled dot-product attention",
    "  attn-bench mha [options]                       a multi-head layer",
    "  attn-bench grow sdpa|mha --lengths N,N,...     time and peak memory over the length",
    "  attn-bench limits [--threads N] [--seconds S]  the machine's limits alone",
    "",
    "Examples",
    "  attn-bench sdpa --heads 12 --queries 512 --head-dim 64 --causal --threads 1",
    "  attn-bench sdpa --heads 32 --kv-heads 8 --queries 1 --keys 16384 --head-dim 128   decoding",
    "  attn-bench sdpa --queries 2048 --engine blas --versus '--engine fused' --versus '--gemm "
    "native'",
    "  attn-bench sdpa --heads 32 --kv-heads 8 --queries 1 --keys 4096 --versus '--page 16'",
    "  attn-bench sdpa --batch 4 --queries 500 --key-lengths 20,70,150,500 --causal --align-end "
    "--versus",
    "                  '--query-lengths 20,70,150,500'   the padded batch beside the ragged one",
    "  attn-bench sdpa --queries 4096 --versus '--block-mask 0.25' --versus '--block-mask "
    "documents'",
    "  attn-bench mha --batch 8 --queries 128 --embed-dim 384 --heads 12 --weights average",
    "  attn-bench grow sdpa --lengths 128,256,512,1024,2048,4096 --causal --seconds 2",
    "",
    "Shapes",
    "  --batch N         B, sequences (1)             --heads N      H, query heads (12)",
    "  --kv-heads N      Hk, key and value heads (H); fewer than H: grouped queries",
    "  --queries N       L (512)                      --keys N       S (L)",
    "  --head-dim N      D, of queries and keys (64)  --value-dim N  Dv, of values (D)",
    "  --dtype T         float32 (default), float64, bfloat16 or float16",
    "  sdpa: --layout T  bhsd (default): rows of one head lie together; bshd: heads of one row do",
    "        --gqa       set the flag of grouped queries even where Hk = H",
    "        --page N    keys and values lie in pages of N rows, a divisor of S, in any order",
    "        --query-lengths N,...  query rows of each sequence in L's place, one behind the "
    "other;",
    "                    the list is repeated over the batch",
    "  mha:  --embed-dim N     E (768); D is E / H unless given",
    "        --keys N          cross-attention; without it query, key and value are one tensor",
    "        --parameters T    what the layer keeps: dtype (default), float32, float64, bfloat16,",
    "                          float16 or int8",
    "        --bound           bind the parameters instead of loading them",
    "        --sequence-first  tensors are (L, B, E), not (B, L, E)",
    "",
    "What a query sees",
    "  --causal              keys up to its position  --query-offset N  position of the first (0)",
    "  --align-end           the last query stands at the last key of its sequence",
    "  --window LEFT,RIGHT   so many keys before and after its position; -1: all",
    "  --key-lengths X,...   keys of each sequence, as a number or as a fraction (0.75) of S; the "
    "list",
    "                        is repeated over the batch",
    "  --mask T              none (default), bool, additive: a dense mask of random content",
    "  --mask-shape T        full (default): (L, S);  per-head: (B, H, L, S);  keys: (B, 1, 1, S), "
    "in mha the",
    "                        layer's key_padding_mask",
    "  --bias T              none (default), full: (L, S), per-head: (H, L, S), distances: a table",
    "                        (H, 257) of them; added beside any mask",
    "  --block-mask X        a mask by blocks, for all heads: a share from 0 to 1 of the blocks, "
    "chosen at",
    "                        random, is seen; documents: 8 of equal length, as whole blocks, see "
    "themselves.",
    "                        The others are hidden, and should take no time: compare with "
    "visible_pairs.",
    "                        --mask is asked in blocks that are seen",
    "  --block-rows N        queries of a block (128)    --block-columns N   keys of one (128)",
    "",
    "How it attends, and what comes out",
    "  --scale X    (1/sqrt(D))    --softcap X    --alibi    --sinks",
    "  --normalizer T        softmax (default), sigmoid, linear",
    "  --weights T           none (default), average, heads: attention weights are an output too",
    "  --lse                 the logarithm of each row's sum is an output too",
    "  --backward            the gradients of query, key and value, in mha of all parameters too, "
    "are",
    "                        measured instead, the forward pass done before",
    "",
    "How it runs",
    "  --engine T            auto (default), blas, fused",
    "  --gemm T              auto (default), blas, native   --kernels NAME  avx512, avx2, neon, "
    "baseline",
    "  --float32-weights     kernels that multiply pairs of bfloat16 (their names end with _bf16) "
    "are "
    "not used",
    "  --threads N           of the library; default: the CPUs this process may use",
    "  --blas-threads N      of OpenBLAS or BLIS; default: as the library's",
    "  --allocate            the library allocates its workspace in every call; default: it is "
    "given one",
    "  --seed N              of the random inputs, which are nearly normal (1)",
    "",
    "How it is measured",
    "  --repeats N           timings at least (5)      --seconds S     timed at least so long "
    "(0.5)",
    "  --versus 'OPTIONS'    another contestant: these options over the command line's; may be "
    "repeated. All",
    "                        are timed in turn, round by round; a line for each, those after the "
    "first with",
    "                        speedup, the median over the rounds of the first's time / its own, "
    "and "
    "the",
    "                        quartiles speedup_low and speedup_high",
    "  --no-limits           do not measure the machine's limits before and after; they are null "
    "then",
    "  --lengths N,N,...     grow: L and S; with --queries only S. Each is measured in its own "
    "process",
    "",
    "A timing is one call, or as many as 20 us need; times are of one call. Fields that need "
    "words:",
    "  median_ms, min_ms     of all timings            repeats, calls_per_timing   how many",
    "  visible_pairs         P, (query, key) pairs that --causal, --window, --key-lengths and "
    "--block-mask",
    "                        leave, over the batch; a dense mask hides none, as its pairs have to "
    "be looked at",
    "  gflops                useful flop / median: sdpa 2 (D + Dv) P H, which is 4 B H L S D if "
    "all "
    "is seen",
    "                        and Dv = D; mha adds 2 B (L E H D + S E Hk D + S E Hk Dv + L H Dv E)",
    "  gbytes                what must be read, once / median: sdpa keys and values that are seen; "
    "mha",
    "                        parameters and inputs",
    "  tensor_bytes          inputs, outputs and parameters; workspace_bytes come on top",
    "  peak_rss_mib          the most memory the process had: of all contestants, in grow of the "
    "length",
    "  fma_gflops            F, multiply-adds on registers with as many threads, the best just "
    "before or",
    "                        after; for float64 half of float32's. limits_isa: their instruction "
    "set",
    "  read_gbytes           sequential reads from memory, likewise",
    "  cycle_ghz             F / (threads * flop per cycle of this CPU, measured too)",
    "  fraction_of_fma             gflops / F",
    "  fraction_of_compute_bound   (flop / F + P H / (threads * cycle_ghz)) / median: the "
    "multiply-adds, and a",
    "                              cycle for each exponential (none with --normalizer linear)",
    "  fraction_of_read            gbytes / read_gbytes",
    "",
    "Exit codes: 0 done; 1 the library refused or memory ran out; 2 wrong command line. An error "
    "is one line.",
    NULL,
};

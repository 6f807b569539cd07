/* SPDX-License-Identifier: BSD-3-Clause
 *
 * help_text.c: what --help says.
 */
#include <stddef.h>

#include "program_commands.h"

const char *const help_program[] = {
    "attn: multi-head attention from files, and pictures of it",
    "",
    "  attn info      what the library is and runs with on this machine",
    "  attn selftest  whether this machine, its BLAS and the kernels compute what they should",
    "  attn run       run an attention layer stored in a .safetensors file; compare, time, explain "
    "its weights",
    "  attn heatmap   draw attention weights as PNG or SVG",
    "",
    "  attn COMMAND --help   teaches the command        attn --version   the library's version",
    "",
    "Exit codes: 0 done; 1 computing or writing failed; 2 wrong command line; 3 a difference above "
    "the",
    "tolerance, or a wrong result in the self-test; 4 a file is missing, broken or does not hold "
    "what was asked for.",
    "",
    "Environment: ATTN_NUM_THREADS and ATTN_KERNELS choose threads and kernels where no option "
    "does.",
    NULL,
};

const char *const help_info[] = {
    "attn info [--json]",
    "",
    "Prints the library's version and build, the BLAS it uses, who computes the matrix products of "
    "float64's",
    "attention and of a layer's projections, the kernels this CPU can run and which are in use, "
    "and "
    "the",
    "number of threads.",
    "",
    "  --json   one JSON object: version, build, blas, blas_is_serial, attention_gemm, "
    "projection_gemm, kernels,",
    "           kernels_available, threads",
    NULL,
};

const char *const help_selftest[] = {
    "attn selftest [--threads N] [--kernels NAME] [--blas] [--json]",
    "",
    "Computes what has a known result and compares: products and attention of small integers, over "
    "quantised",
    "caches too, exactly; softmax and a multi-head layer whose weights are known; gradients that "
    "are exact; then",
    "all of it by four threads at once. Takes a few tenths of a second. The first line tells which "
    "BLAS and which kernels were checked.",
    "",
    "  --threads N      threads of the library",
    "  --kernels NAME   one of those attn info lists; default: the best for this CPU",
    "  --blas           leave every product that BLAS can do to it, so that all of it is checked;",
    "                   else float64's attention",
    "  --json           one JSON object: version, blas, kernels, threads, failed, seconds, checks",
    "",
    "Exit codes: 0 all checks passed; 1 one could not be run; 2 wrong command line; 3 one found a "
    "wrong result.",
    NULL,
};

const char *const help_run[] = {
    "attn run LAYER.safetensors --query FILE[:TENSOR] [options]",
    "",
    "Runs a multi-head attention layer: projects query, key and value, attends, projects the "
    "result. Letters",
    "in shapes: N sequences, L queries, S keys, H heads, E features, T = S + extra columns.",
    "",
    "Example: sentences of a language model, compared with the model's own output",
    "  attn run layer.safetensors --query layer.safetensors:hidden_states --weights heads \\",
    "      --key-padding-mask layer.safetensors:key_padding_mask --expect layer.safetensors "
    "--links",
    "",
    "The layer. Its weights are found by their names: those of torch.nn.MultiheadAttention "
    "(in_proj_weight or",
    "q_proj_weight ..., out_proj.weight), of BERT (self.query.weight, output.dense.weight), ViT, "
    "BART, Llama",
    "(q_proj.weight, o_proj.weight), DistilBERT, timm (qkv.weight, proj.weight) or Phi-3. float16 "
    "and bfloat16",
    "are widened unless --dtype keeps them. Missing biases beside present ones are zero. Rotary "
    "positions are",
    "applied where --rope asks for them. A tensor under the prefix that attn does not know (norms "
    "of queries and keys, sinks, "
    "relative",
    "positions, adapters, scales) is an error: without it the numbers would not be the model's.",
    "  --prefix P            take the layer whose tensors are named P + name: "
    "encoder.layer.0.attention.",
    "  --ignore NAME         compute without that tensor; NAME. with a dot at its end: all that "
    "begin so; may be",
    "                        repeated",
    "  --num-heads H         query heads; may be left out if the file's metadata has num_heads",
    "  --num-kv-heads K      key and value heads    \\  otherwise derived from the weights' "
    "shapes;",
    "  --head-dim D          of queries and keys     | give them only to have them checked, or for "
    "packed",
    "  --value-head-dim D    of values              /  weights whose heads are unusual",
    "  --add-zero-attn       an extra key and value of zeros (metadata add_zero_attn)",
    "  --batch-first         tensors are (N, L, E) (metadata batch_first);  --sequence-first: (L, "
    "N, E), the default",
    "  --dtype D             of weights, inputs and results: float32, float64, bfloat16 or "
    "float16 (sums are",
    "                        float32's; what is added to scores is not rounded); auto (default): "
    "float64 if",
    "                        the weights are, else float32",
    "",
    "Inputs, each FILE or FILE:TENSOR. Without TENSOR: query, key, value, else hidden_states, else "
    "the only one.",
    "  --query F             (L, N, E), or (L, E) for one sequence",
    "  --key F               (S, N, E); default: the query, which is self-attention",
    "  --value F             (S, N, E); default: the key",
    "",
    "What a query may see. All of these compose.",
    "  --key-padding-mask F  (N, S): keys that do not exist; bool, or numbers that are added to "
    "the scores",
    "  --attn-mask F         (L, S), (N*H, L, S) or (N or 1, H or 1, L, S); bool or added",
    "  --bias F              numbers that are added to the scores beside any mask, as models with "
    "relative",
    "                        positions learn them; any shape that broadcasts to (N, H, L, S)",
    "  --block-mask F        bool, any shape that broadcasts to (N, H, L / rows, S / columns), "
    "both "
    "rounded up:",
    "                        true where the block's queries may see its keys",
    "  --block-rows N        queries of a block;  --block-columns N: keys of one",
    "  --mask-polarity P     exclude (default, as PyTorch's layer): true hides; include: true "
    "shows",
    "  --key-lengths 5,9,4   one number of keys per sequence",
    "  --causal              query i sees keys up to i",
    "  --window LEFT,RIGHT   query i sees keys i - LEFT to i + RIGHT; -1 = no limit",
    "  --query-offset N      query i stands at position i + N among the keys",
    "  --align-end           the last query stands at the last key of its sequence",
    "",
    "How it attends.",
    "  --scale X             multiplier of query . key; default 1/sqrt(head_dim)",
    "  --softcap X           scores become X * tanh(score / X)",
    "  --position-bias F     (H or 1, 2 R + 1): numbers added to scores by distance, -R to R, as "
    "T5 "
    "has them",
    "  --alibi F             (H) or (1): slopes; scores lose slope * distance",
    "  --sinks F             (H) or (1): one more logit in each row's sum, as gpt-oss has them",
    "  --rope BASE           rotate queries and keys by their positions, as Llama does (BASE "
    "10000, "
    "500000, ...)",
    "  --rope-frequencies F  (R / 2): rotate by these, radians a position, as a file's inv_freq",
    "  --rope-dim R          rotate the first R features of a head only;  --rope-interleaved: "
    "neighbours are a",
    "                        pair, as in GPT-J, not features R / 2 apart",
    "  --dropout P           drop each weight with this probability, the others grow by 1 / (1 - "
    "P)",
    "  --dropout-seed N      which weights (0)",
    "  --normalizer N        softmax (default), sigmoid, or linear: the scores themselves",
    "",
    "What comes out.",
    "  --weights W           none (default), average (N, L, T), or heads (N, H, L, T)",
    "  --output F            write attn_output, attn_weights, the padding and the words to "
    "F.safetensors",
    "  --expect F            print the largest difference from F's attn_output and, if computed, "
    "attn_weights;",
    "  --tolerance X         exit code 3 if one is above X; default 1e-5, and where results have "
    "16 bits the",
    "                        distance of neighbours from 1 to 2: 2^-7 of bfloat16, 2^-10 of "
    "float16",
    "  --links [K]           per sequence and head the K (default 1) strongest links between "
    "words. Words come",
    "                        from the metadata tokens.0, tokens.1, ... (JSON arrays) of the "
    "query's and key's",
    "                        files; needs --weights heads. Marks such as [CLS] are shown only if "
    "nothing else is",
    "  --time N              run N times more; print the fastest and the median",
    "  --threads N           threads of the library;  --kernels NAME: one of those attn info lists",
    "  --json                print one JSON object instead",
    "",
    "Exit codes: 0 done; 1 computing or writing failed; 2 wrong command line; 3 difference above "
    "the tolerance;",
    "4 a file is missing, broken or does not hold what was asked for.",
    NULL,
};

const char *const help_heatmap[] = {
    "attn heatmap FILE.safetensors --output PICTURE.png [options]",
    "",
    "Draws attention weights: one panel per head, a row for each query word, a column for each key "
    "word,",
    "bright where a word attends strongly. Padding is left out; extra columns of the layer stand "
    "at the right.",
    "",
    "Example:",
    "  attn run layer.safetensors --query layer.safetensors --weights heads --output "
    "out.safetensors",
    "  attn heatmap out.safetensors --sequence 1 --output heads.png --output heads.svg",
    "",
    "  --output F      a file ending in .png or .svg; may be repeated",
    "  --tensor NAME   the weights; default attn_weights. (N, H, L, T), (N, L, T), (H, L, T) or "
    "(L, T)",
    "  --axes A        how to read them: NHLT, NLT, HLT, LT; auto (default) goes by the file's "
    "metadata and shapes",
    "  --sequence N    which sequence, counted from 0 (default 0)",
    "  --words-only    leave out marks such as [CLS] and [SEP], which often take most of the "
    "weight",
    "  --title T       the picture's title",
    "",
    "Words come from the metadata tokens.0, tokens.1, ... (rows, and columns unless key_tokens.0, "
    "... are there):",
    "JSON arrays of strings; without them positions are shown. The bool tensor key_padding_mask "
    "(N, S), true =",
    "padding, says what to leave out. Files written by attn run have all of this.",
    "",
    "Exit codes: 0 done; 1 writing failed; 2 wrong command line; 4 the file is missing, broken or "
    "has nothing to draw.",
    NULL,
};

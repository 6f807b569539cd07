-- SPDX-License-Identifier: BSD-3-Clause
-- What the wrapper adds to the library: memory, options, errors, layers as Lua objects.

local ffi = require "ffi"
local attention = require "attention"
local checks = require "checks"

local tests = {}

local query = {{1, 0, 0, 0}, {0, 4, 0, 0}}
local key = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}
local value = {{10}, {20}, {30}}

local assert_equal, assert_close, assert_fails = checks.equal, checks.close, checks.fails

function tests.nested_tables_become_tensors()
  local floats = attention.tensor {{1, 2, 3}, {4, 5, 6}}
  assert_equal("float32", floats.dtype)
  assert_equal("2 3", table.concat(floats.shape, " "))
  assert_equal(6, floats:totable()[2][3])
  assert_equal("bool", attention.tensor({true, false}).dtype)
  assert_equal(false, attention.tensor({true, false}):totable()[2])
  assert_equal(7, attention.tensor(7, "int64"):totable())
end

function tests.ragged_tables_are_an_error()
  assert_fails(attention.codes.SHAPE, "values: expected 2 in each table on axis 1, got 1", attention.tensor,
               {{1, 2}, {3}})
end

function tests.unknown_dtype_is_an_error()
  assert_fails(attention.codes.VALUE, "dtype: expected one of bfloat16, bool, float16, float32, float64, int32, int64, int8, uint8, got half",
               attention.zeros, "half", {1})
end

function tests.bytes_of_the_wrong_length_are_an_error()
  assert_fails(attention.codes.SHAPE, "bytes: expected 8 for the shape, got 7", attention.from_bytes, "1234567",
               "float32", {2})
end

function tests.view_reads_an_ffi_array_by_strides()
  local data = ffi.new("float[6]", 1, 2, 3, 4, 5, 6)
  local columns = attention.view(data, "float32", {3, 2}, {1, 3})
  assert_equal(4, columns:totable()[1][2])
  data[3] = 40
  assert_equal(40, columns:totable()[1][2])
  assert_equal(40, columns:transpose(0, 1):totable()[2][1])
  assert_equal(5, columns:slice(0, 2, 2, -1):totable()[2][2])
  assert_equal(6, columns:select(-1, 1):totable()[3])
end

function tests.view_with_too_few_strides_is_an_error()
  assert_fails(attention.codes.SHAPE, "strides: expected 2", attention.view, ffi.new("float[6]"), "float32",
               {3, 2}, {1})
end

function tests.heads_split_and_merge()
  local packed = attention.tensor {{1, 2, 3, 4}, {5, 6, 7, 8}}
  local heads = packed:split_heads(2)
  assert_equal(7, heads:totable()[2][2][1])
  assert_equal(7, heads:merge_heads():totable()[2][3])
end

function tests.sdpa_returns_what_is_asked_for()
  local output, lse, weights = attention.sdpa(query, key, value)
  assert_close(18.222059, output:totable()[1][1])
  assert(lse == nil and weights == nil)
  output, lse, weights = attention.sdpa(query, key, value, {return_lse = true, return_weights = true})
  assert_close(20, output:totable()[2][1])
  assert_close(math.log(math.exp(0.5) + 2), lse:totable()[1])
  assert_close(0.451863, weights:totable()[1][1])
end

function tests.weights_are_per_head_or_averaged()
  local heads = {query, {{0, 0, 0, 0}, {0, 0, 0, 0}}}
  local _, _, per_head = attention.sdpa(heads, {key, key}, {value, value}, {return_weights = "per_head"})
  local _, _, averaged = attention.sdpa(heads, {key, key}, {value, value}, {return_weights = "averaged"})
  assert_equal("2 2 3", table.concat(per_head.shape, " "))
  assert_equal("2 3", table.concat(averaged.shape, " "))
  assert_close((per_head:totable()[1][2][2] + 1 / 3) / 2, averaged:totable()[2][2])
  assert_fails(attention.codes.VALUE, "return_weights: expected one of averaged, per_head", attention.sdpa, heads,
               {key, key}, {value, value}, {return_weights = "both"})
end

function tests.bias_adds_beside_a_mask()
  local output = attention.sdpa(query, key, value, {scale = 0, bias = {{math.log(3), 0, 0}},
                                                    attn_mask = {true, true, false}})
  assert_close(12.5, output:totable()[1][1])
end

function tests.align_end_puts_the_last_query_at_the_last_key()
  local output = attention.sdpa(query, key, value, {is_causal = true, align_end = true, scale = 0})
  assert_close(15, output:totable()[1][1])
  assert_close(20, output:totable()[2][1])
  assert_fails(attention.codes.VALUE, "query_offset", attention.sdpa, query, key, value,
               {align_end = true, query_offset = 1})
end

function tests.lengths_may_be_int32()
  local lengths = attention.tensor(1, "int32")
  assert_close(10, attention.sdpa(query, key, value, {key_lengths = lengths}):totable()[2][1])
end

function tests.linear_weights_have_no_lse()
  local output = attention.sdpa(query, key, value, {normalizer = "linear", scale = 1})
  assert_close(80, output:totable()[2][1])
  assert_fails(attention.codes.VALUE, "lse", attention.sdpa, query, key, value,
               {normalizer = "linear", return_lse = true})
end

function tests.what_a_later_version_may_know_is_unsupported()
  assert_fails(attention.codes.UNSUPPORTED, "is_causal", attention.sdpa, query, key, value, {is_causal = 2})
end

function tests.explain_tells_what_runs()
  local context = attention.context {engine = "fused"}
  local report = attention.explain(query, key, value, {context = context})
  assert_equal("fused", report.engine)
  assert_equal("native", report.gemm)
  assert_equal(true, report.packs.query)
  assert_equal(context:describe().kernels, report.kernels)
end

function tests.sdpa_writes_into_out()
  local out = attention.zeros("float32", {2, 1})
  local output = attention.sdpa(query, key, value, {out = out})
  assert(output == out)
  assert_close(18.222059, out:totable()[1][1])
end

function tests.sdpa_takes_plain_numbers_as_options()
  local output = attention.sdpa(query, key, value, {key_lengths = 1, scale = 0})
  assert_close(10, output:totable()[2][1])
  output = attention.sdpa(query, key, value, {is_causal = true, query_offset = 1, scale = 0})
  assert_close(15, output:totable()[1][1])
  output = attention.sdpa(query, key, value, {window = {0, 1}, scale = 0})
  assert_close(25, output:totable()[2][1])
end

function tests.true_in_a_mask_attends_in_sdpa()
  local output = attention.sdpa(query, key, value, {attn_mask = {false, true, false}})
  assert_close(20, output:totable()[1][1])
end

function tests.misspelt_option_is_an_error()
  assert_fails(attention.codes.VALUE, "causal: expected one of the options", attention.sdpa, query, key, value,
               {causal = true})
  assert_fails(attention.codes.VALUE, "heads: expected one of the options", attention.layer, {heads = 2})
end

function tests.error_has_code_name_and_message()
  local failure = assert_fails(attention.codes.SHAPE, "key: expected shape", attention.sdpa, query, value, value)
  assert_equal("ATTN_ERROR_SHAPE", failure.name)
  assert_equal(failure.name .. ": " .. failure.message, tostring(failure))
  assert(not attention.is_error("text") and not attention.is_error({}))
end

function tests.context_describes_itself_until_closed()
  local context = attention.context {num_threads = 2, engine = "fused", gemm = "native", float32_weights = true}
  local description = context:describe()
  assert_equal(2, description.num_threads)
  assert_equal("fused", description.engine)
  assert_equal("native", description.gemm)
  assert_equal("native", description.projection_gemm)
  context:start()
  assert_close(20, attention.sdpa(query, key, value, {context = context}):totable()[2][1])
  context:close()
  context:close()
  assert_fails(attention.codes.VALUE, "context: expected an open context", attention.sdpa, query, key, value,
               {context = context})
end

function tests.selftest_passes()
  attention.selftest()
  attention.selftest(attention.context {num_threads = 2})
end

function tests.context_names_the_engines_it_knows()
  assert_fails(attention.codes.VALUE, "engine: expected one of auto, blas, fused, got gpu", attention.context,
               {engine = "gpu"})
end

-- A layer of one head whose projections are all the identity.
local function identity_layer(config)
  local layer = attention.layer(config or {embed_dim = 2, num_heads = 1, bias = false})
  local identity = {{1, 0}, {0, 1}}
  layer:load_state_dict {
    q_proj_weight = identity, k_proj_weight = identity, v_proj_weight = identity, ["out_proj.weight"] = identity,
  }
  return layer
end

local tokens = {{1, 0}, {0, 1}, {1, 1}}

function tests.true_in_a_mask_is_excluded_in_a_layer()
  local output, weights = identity_layer()(tokens, tokens, tokens, {key_padding_mask = {true, false, true}})
  assert_close(1, output:totable()[1][2])
  assert_close(1, weights:totable()[3][2])
end

function tests.layer_takes_options_of_the_attention_inside()
  local layer = identity_layer()
  local causal = layer(tokens, tokens, tokens, {is_causal = true}):totable()
  local window = layer(tokens, tokens, tokens, {window = {-1, 0}}):totable()
  assert_equal(causal[2][1], window[2][1])
  local _, weights = layer(tokens, tokens, tokens, {bias = {0, 0, -math.huge}})
  assert_equal(0, weights:totable()[1][3])
  assert_fails(attention.codes.VALUE, "out: expected one of the options", layer, tokens, tokens, tokens, {out = true})
  assert_fails(attention.codes.UNSUPPORTED, "attention.align_end", layer, tokens, tokens, tokens, {align_end = 2})
end

function tests.layer_returns_weights_per_head_and_lse()
  local layer = attention.layer {embed_dim = 4, num_heads = 2, add_zero_attn = true}
  layer:init_parameters(1)
  local batch = attention.zeros("float32", {3, 5, 4})
  local _, averaged = layer(batch, batch, batch)
  assert_equal("5 3 4", table.concat(averaged.shape, " "))
  local _, weights, lse = layer(batch, batch, batch, {average_attn_weights = false, return_lse = true})
  assert_equal("5 2 3 4", table.concat(weights.shape, " "))
  assert_equal("5 2 3", table.concat(lse.shape, " "))
  assert_close(math.log(4), lse:totable()[1][1][1])
end

function tests.layer_describes_itself()
  local layer = attention.layer {embed_dim = 6, num_heads = 2, bias = false, batch_first = true}
  local config = layer:describe()
  assert_equal(6, config.kdim)
  assert_equal(3, config.head_dim)
  assert_equal(false, config.bias)
  assert_equal(true, config.batch_first)
  assert_equal("float32", config.dtype)
  assert_equal(3, attention.layer(config):describe().value_head_dim)
end

function tests.layer_explains_a_call()
  local context = attention.context {engine = "blas", gemm = "native"}
  local report = identity_layer():explain(tokens, tokens, tokens, {context = context})
  assert_equal("native", report.projection_gemm)
  assert_equal(false, report.depends_on_blas_threads)
  assert_equal("blas", report.attention.engine)
end

function tests.layer_lists_and_returns_its_parameters()
  local layer = attention.layer {embed_dim = 4, num_heads = 2}
  local parameters = layer:parameters()
  assert_equal("in_proj_weight", parameters[1].name)
  assert_equal("12 4", table.concat(parameters[1].shape, " "))
  assert_fails(attention.codes.PARAMETER, "in_proj_weight", layer.state_dict, layer)
  layer:init_parameters(7)
  local state = layer:state_dict()
  local copy, context = attention.layer {embed_dim = 4, num_heads = 2}, attention.context()
  copy:load_state_dict(state, context)
  local input = attention.tensor {{1, 2, 3, 4}, {4, 3, 2, 1}}
  assert_equal(layer(input, input, input):totable()[2][3], copy(input, input, input):totable()[2][3])
end

-- Binds a parameter that nobody else holds and returns its memory.
local function bind_identity(layer)
  local weight = attention.tensor {{1, 0}, {0, 1}}
  layer:bind("out_proj.weight", weight)
  return weight:data()
end

function tests.bound_parameter_lives_with_the_layer_and_is_read_anew()
  local layer = identity_layer()
  local before = layer(tokens, tokens, tokens):totable()[1][1]
  local data = bind_identity(layer)
  collectgarbage()
  data[0] = 3
  assert_close(3 * before, layer(tokens, tokens, tokens):totable()[1][1])
end

function tests.float64_layer_converts_tables()
  local layer = identity_layer {embed_dim = 2, num_heads = 1, bias = false, dtype = "float64"}
  local output, weights = layer(tokens, tokens, tokens, {need_weights = false})
  assert_equal("float64", output.dtype)
  assert_equal(nil, weights)
end

function tests.closed_layer_is_an_error()
  local layer = identity_layer()
  layer:close()
  layer:close()
  assert_fails(attention.codes.NULL, "layer", layer, tokens, tokens, tokens)
end

local function resident_kilobytes()
  for line in io.lines("/proc/self/status") do
    local kilobytes = line:match("^VmRSS:%s*(%d+)")
    if kilobytes then
      return tonumber(kilobytes)
    end
  end
end

-- 64 layers of a megabyte each.
function tests.collected_layers_free_their_parameters()
  local before = resident_kilobytes()
  for seed = 1, 64 do
    attention.layer({embed_dim = 256, num_heads = 4}):init_parameters(seed)
    collectgarbage()
  end
  local growth = resident_kilobytes() - before
  assert(growth < 16 * 1024, ("64 layers of 1 MiB left %d KiB"):format(growth))
end

checks.run(tests)

# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's attention on CPUs, without PyTorch.

NumPy arrays, PyTorch tensors and every other DLPack producer on the CPU go in, the same kind comes
out, without copies, whatever the strides. Everything is computed by libattention, a C library that
is part of this package.

>>> import numpy as np, libattention
>>> query, key, value = np.random.default_rng(0).normal(size=(3, 2, 8, 5, 16)).astype("float32")
>>> libattention.scaled_dot_product_attention(query, key, value, is_causal=True).shape
(2, 8, 5, 16)
"""

from libattention._attention import scaled_dot_product_attention
from libattention._backward import Gradients, scaled_dot_product_attention_backward
from libattention._cache_memory import CacheFullError
from libattention._context import Context, start
from libattention._dropout import Dropout
from libattention._explain import explain, explain_backward
from libattention._heatmap import plot_heatmap
from libattention._info import info, selftest
from libattention._kv import KV, kv_append
from libattention._kv_cache import KVCache
from libattention._layer_backward import SavedCall
from libattention._library import Error
from libattention._merge import merge
from libattention._multihead import MultiheadAttention
from libattention._rms_norm import rms_norm
from libattention._rope import rope

__all__ = [
    "KV",
    "CacheFullError",
    "Context",
    "Dropout",
    "Error",
    "Gradients",
    "KVCache",
    "MultiheadAttention",
    "SavedCall",
    "explain",
    "explain_backward",
    "info",
    "kv_append",
    "merge",
    "plot_heatmap",
    "rms_norm",
    "rope",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "selftest",
    "start",
]
__version__ = "0.1.0"

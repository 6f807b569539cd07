# SPDX-License-Identifier: BSD-3-Clause
"""How each contestant computes a cell, and the interface that a worker knows it by."""

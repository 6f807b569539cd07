# SPDX-License-Identifier: BSD-3-Clause
"""libattention inside other people's programs."""

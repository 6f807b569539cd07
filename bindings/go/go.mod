// SPDX-License-Identifier: BSD-3-Clause
module attention

go 1.19

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_outputs.h: what a call's outputs look like.
 */
#ifndef ATTNI_SDPA_SDPA_OUTPUTS_H
#define ATTNI_SDPA_SDPA_OUTPUTS_H

#include "problem/sdpa_request.h"

/* The outputs that belong to a request without any: its own output, and those in its params, are
 * not looked at. Fails with the errors of everything else. */
attn_status attni_sdpa_describe_outputs(const attni_sdpa_request *request,
                                        attn_sdpa_outputs *outputs);

#endif

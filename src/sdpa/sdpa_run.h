/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_run.h: a checked and planned call is computed.
 */
#ifndef ATTNI_SDPA_SDPA_RUN_H
#define ATTNI_SDPA_SDPA_RUN_H

#include <attention/sdpa.h>

#include "sdpa/sdpa_plan.h"

/* `scratch` is a block of the plan's layout. What ran is told in *report, of any version, if it is
 * not NULL. */
attn_status attni_sdpa_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_sdpa_plan *plan, char *scratch, attn_sdpa_report *report);

#endif

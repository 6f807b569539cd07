/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_report.h: what a plan says of itself, in the public struct's words.
 */
#ifndef ATTNI_SDPA_SDPA_REPORT_H
#define ATTNI_SDPA_SDPA_REPORT_H

#include <attention/sdpa.h>

#include "sdpa/sdpa_plan.h"

attn_sdpa_report attni_sdpa_report_of(const attn_context *context, const attni_sdpa_plan *plan);

#endif

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * option_check.c: options that are one of a few numbers.
 */
#include "base/option_check.h"

static attn_status status_of(int32_t value) {
    return value < 0 ? ATTN_ERROR_VALUE : ATTN_ERROR_UNSUPPORTED;
}

attn_status attni_check_choice(const char *prefix, const char *name, int32_t value, int32_t highest,
                               const char *what) {
    if (value >= 0 && value <= highest) {
        return ATTN_OK;
    }
    return attni_fail(status_of(value),
                      "%s%s: expected a value of %s, 0 to %d in this version, got %d", prefix, name,
                      what, (int)highest, (int)value);
}

attn_status attni_check_switch(const char *prefix, const char *name, int32_t value) {
    if (value == 0 || value == 1) {
        return ATTN_OK;
    }
    return attni_fail(status_of(value), "%s%s: expected 0 or 1, got %d", prefix, name, (int)value);
}

attn_status attni_check_bits(const char *prefix, const char *name, int32_t value, int32_t known,
                             const char *what) {
    if (value >= 0 && (value & ~known) == 0) {
        return ATTN_OK;
    }
    return attni_fail(status_of(value),
                      "%s%s: expected bits of %s, which add up to %d in this version, got %d",
                      prefix, name, what, (int)known, (int)value);
}

attn_status attni_check_reserved(const char *prefix, int32_t value) {
    if (value == 0) {
        return ATTN_OK;
    }
    return attni_fail(ATTN_ERROR_UNSUPPORTED, "%sreserved: expected 0 in this version, got %d",
                      prefix, (int)value);
}

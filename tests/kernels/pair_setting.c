/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair_setting.c: goes through the sets that have pairs, and makes pairs.
 */
#include "pair_setting.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "support/half_numbers.h"

static bool any_set_has_pairs(void) {
    const attni_kernel_set *set;
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        if (set->pairs != NULL) {
            return true;
        }
    }
    return false;
}

static panel_check check_of_pairs;

static void check_where_pairs_are(panel_setting *setting) {
    if (setting->set->pairs != NULL) {
        setting->storage = ATTNI_STORED_BFLOAT16;
        check_of_pairs(setting);
    }
}

void for_every_pair_panel(panel_check check) {
    if (!any_set_has_pairs()) {
        print_message("this processor has no set of kernels that multiplies pairs of bfloat16; the "
                      "test of wide vectors has one everywhere\n");
        skip();
    }
    check_of_pairs = check;
    for_every_panel(check_where_pairs_are);
}

uint32_t *place_own_pairs(panel_setting *setting, int64_t count) {
    return (uint32_t *)(void *)place_own(setting, count);
}

uint16_t get_half(const void *from, int64_t i) {
    uint16_t half;
    memcpy(&half, (const char *)from + i * (int64_t)sizeof half, sizeof half);
    return half;
}

void set_half(void *to, int64_t i, uint16_t half) {
    memcpy((char *)to + i * (int64_t)sizeof half, &half, sizeof half);
}

uint16_t half_of(double number) {
    return half_nearest(ATTN_DTYPE_BFLOAT16, number);
}

uint32_t pair_of_halves(uint16_t first, uint16_t second) {
    return first | (uint32_t)second << 16;
}

uint16_t half_of_pair(uint32_t pair, int64_t which) {
    return (uint16_t)(which == 0 ? pair & 0xffffU : pair >> 16);
}

double number_of_pair(uint32_t pair, int64_t which) {
    const uint32_t bits = (uint32_t)half_of_pair(pair, which) << 16; /* of the same float32 */
    float number;
    memcpy(&number, &bits, sizeof number);
    return (double)number;
}

static uint16_t random_half(panel_setting *setting, bool is_whole) {
    return half_of(is_whole ? (double)random_between(&setting->random, -8, 8)
                            : random_real(&setting->random, -2, 2));
}

uint32_t random_pair(panel_setting *setting, bool is_whole) {
    const uint16_t first = random_half(setting, is_whole);
    return pair_of_halves(first, random_half(setting, is_whole));
}

uint32_t random_word(panel_setting *setting) {
    return (uint32_t)random_bits(&setting->random);
}

void assert_same_pair(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                      uint32_t actual, uint32_t expected) {
    if (actual != expected) {
        fail_msg("%s, %d vectors, %s (%lld, %lld): expected %08x, got %08x", setting->set->name,
                 (int)setting->vectors, what, (long long)row, (long long)lane, (unsigned)expected,
                 (unsigned)actual);
    }
}

double pair_sum_bound(int64_t num_pairs, double magnitude) {
    return (double)(2 * num_pairs + 5) * FLOAT_UNIT * magnitude +
           (double)(4 * num_pairs + 2) * (double)FLT_MIN;
}

bool drops_subnormals(const panel_setting *setting) {
    return strcmp(setting->set->name, "baseline_bf16") != 0;
}

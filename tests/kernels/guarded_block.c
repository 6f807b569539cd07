/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_block.c: a block between two pages without access.
 */
#include "guarded_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { PATTERN = 0xA5, WATCHED_BYTES = 1024 };

void guarded_open(guarded_block *block) {
    guarded_open_bytes(block, GUARDED_BYTES);
}

void guarded_open_bytes(guarded_block *block, size_t bytes) {
    *block = (guarded_block){.pages = guard_pages_map(bytes)};
}

void guarded_close(guarded_block *block) {
    guard_pages_unmap(&block->pages);
}

/* The first and past the last byte of what is watched around the stretch. */
static unsigned char *watched_begin(const guarded_block *block) {
    const size_t before = (size_t)(block->start - block->pages.bytes);
    return block->start - (before < WATCHED_BYTES ? before : WATCHED_BYTES);
}

static unsigned char *watched_end(const guarded_block *block) {
    unsigned char *end = block->start + block->length;
    const size_t behind = (size_t)(guard_pages_last(&block->pages, 0) - end);
    return end + (behind < WATCHED_BYTES ? behind : WATCHED_BYTES);
}

char *guarded_place(guarded_block *block, size_t length, enum guarded_placement placement) {
    assert_true(length <= block->pages.capacity / 2 - 64);
    block->length = length;
    block->start = block->pages.bytes;
    if (placement == GUARDED_AT_END) {
        block->start = guard_pages_last(&block->pages, length);
    } else if (placement == GUARDED_UNALIGNED) {
        block->start = block->pages.bytes + block->pages.capacity / 2 + 1;
    }
    unsigned char *begin = watched_begin(block);
    memset(begin, PATTERN, (size_t)(watched_end(block) - begin));
    return (char *)block->start;
}

void guarded_check(const guarded_block *block, const char *what) {
    const unsigned char *past = block->start + block->length;
    const unsigned char *end = watched_end(block);
    for (const unsigned char *byte = watched_begin(block); byte < end; ++byte) {
        if (byte == block->start) {
            byte = past;
        }
        if (byte < end && *byte != PATTERN) {
            fail_msg("%s: wrote %d bytes %s the stretch", what,
                     (int)(byte < block->start ? block->start - byte : byte - past + 1),
                     byte < block->start ? "before" : "behind");
        }
    }
}

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_block.c: a block between two pages without access.
 */
#include "guarded_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATTERN = 0xA5, WATCHED_BYTES = 1024 };

void guarded_open(guarded_block *block) {
    guarded_open_bytes(block, GUARDED_BYTES);
}

void guarded_open_bytes(guarded_block *block, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t capacity = (bytes + page - 1) / page * page;
    unsigned char *pages =
        mmap(NULL, capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + page, capacity, PROT_READ | PROT_WRITE), 0);
    *block = (guarded_block){.bytes = pages + page, .capacity = capacity};
}

void guarded_close(guarded_block *block) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(block->bytes - page, block->capacity + 2 * page);
}

/* The first and past the last byte of what is watched around the stretch. */
static unsigned char *watched_begin(const guarded_block *block) {
    const size_t before = (size_t)(block->start - block->bytes);
    return block->start - (before < WATCHED_BYTES ? before : WATCHED_BYTES);
}

static unsigned char *watched_end(const guarded_block *block) {
    unsigned char *end = block->start + block->length;
    const size_t behind = (size_t)(block->bytes + block->capacity - end);
    return end + (behind < WATCHED_BYTES ? behind : WATCHED_BYTES);
}

char *guarded_place(guarded_block *block, size_t length, enum guarded_placement placement) {
    assert_true(length <= block->capacity / 2 - 64);
    block->length = length;
    block->start = block->bytes;
    if (placement == GUARDED_AT_END) {
        block->start = block->bytes + block->capacity - length;
    } else if (placement == GUARDED_UNALIGNED) {
        block->start = block->bytes + block->capacity / 2 + 1;
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

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

enum { PATTERN = 0xA5 };

void guarded_open(guarded_block *block) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *pages =
        mmap(NULL, GUARDED_BYTES + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + page, GUARDED_BYTES, PROT_READ | PROT_WRITE), 0);
    *block = (guarded_block){.bytes = pages + page};
}

void guarded_close(guarded_block *block) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(block->bytes - page, GUARDED_BYTES + 2 * page);
}

char *guarded_place(guarded_block *block, size_t length, enum guarded_placement placement) {
    assert_true(length <= GUARDED_BYTES / 2 - 64);
    memset(block->bytes, PATTERN, GUARDED_BYTES);
    block->length = length;
    block->start = block->bytes;
    if (placement == GUARDED_AT_END) {
        block->start = block->bytes + GUARDED_BYTES - length;
    } else if (placement == GUARDED_UNALIGNED) {
        block->start = block->bytes + GUARDED_BYTES / 2 + 1;
    }
    return (char *)block->start;
}

void guarded_check(const guarded_block *block, const char *what) {
    const unsigned char *end = block->start + block->length;
    for (const unsigned char *byte = block->bytes; byte < block->bytes + GUARDED_BYTES; ++byte) {
        if (byte == block->start) {
            byte = end;
        }
        if (byte < block->bytes + GUARDED_BYTES && *byte != PATTERN) {
            fail_msg("%s: wrote %d bytes %s the row", what,
                     (int)(byte < block->start ? block->start - byte : byte - end + 1),
                     byte < block->start ? "before" : "behind");
        }
    }
}

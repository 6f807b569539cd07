/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.h: how the public functions are declared; nothing else.
 *
 * ATTN_API         marks a function of the library's ABI; every other symbol is hidden.
 * ATTN_MUST_CHECK  marks a function whose status must not be ignored.
 *
 * Programs that link the static library need to define nothing: on the platforms supported today
 * both macros mean the same for the shared and for the static library.
 */
#ifndef ATTENTION_EXPORT_H
#define ATTENTION_EXPORT_H

/* Structs have no hidden padding, which could not be told from an option, where pointers have 8
 * bytes. C99 cannot ask. */
#if defined(__cplusplus)
static_assert(sizeof(void *) == 8, "libattention needs 64-bit pointers");
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(void *) == 8, "libattention needs 64-bit pointers");
#endif

#if defined(__GNUC__)
#define ATTN_API __attribute__((visibility("default")))
#define ATTN_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ATTN_API
#define ATTN_MUST_CHECK
#endif

#if defined(__cplusplus)
#define ATTN_BEGIN_DECLS extern "C" {
#define ATTN_END_DECLS }
#else
#define ATTN_BEGIN_DECLS
#define ATTN_END_DECLS
#endif

#endif

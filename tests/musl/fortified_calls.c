/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fortified_calls.c: what the packaged CMocka and cJSON, compiled for glibc with its checked calls,
 * ask for and musl does not have. With it they run under musl, whose other functions they use have
 * the same binary interface. scripts/musl builds it for the tests; nothing else is linked with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

int __printf_chk(int flag, const char *format, ...);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);
int __sprintf_chk(char *text, int flag, size_t size, const char *format, ...);
int __snprintf_chk(char *text, size_t most, int flag, size_t size, const char *format, ...);
int __vsnprintf_chk(char *text, size_t most, int flag, size_t size, const char *format,
                    va_list arguments);
_Noreturn void __longjmp_chk(jmp_buf place, int value);

int __printf_chk(int flag, const char *format, ...) {
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    const int length = vprintf(format, arguments);
    va_end(arguments);
    return length;
}

int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    const int length = vfprintf(file, format, arguments);
    va_end(arguments);
    return length;
}

int __sprintf_chk(char *text, int flag, size_t size, const char *format, ...) {
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, size, format, arguments);
    va_end(arguments);
    return length;
}

int __snprintf_chk(char *text, size_t most, int flag, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = __vsnprintf_chk(text, most, flag, size, format, arguments);
    va_end(arguments);
    return length;
}

/* `size` is (size_t)-1 where the compiler did not know it. */
int __vsnprintf_chk(char *text, size_t most, int flag, size_t size, const char *format,
                    va_list arguments) {
    (void)flag;
    return vsnprintf(text, most < size ? most : size, format, arguments);
}

_Noreturn void __longjmp_chk(jmp_buf place, int value) {
    longjmp(place, value);
}

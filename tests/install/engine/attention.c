/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention.c: what the engine has of that name itself.
 */
int engine_attention(void);

int engine_attention(void) {
    return 7;
}

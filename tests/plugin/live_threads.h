/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live_threads.h: the threads of the process, as the kernel lists them.
 */
#ifndef PLUGIN_LIVE_THREADS_H
#define PLUGIN_LIVE_THREADS_H

/* Starts a thread and waits until it is listed no more: a sanitizer starts one of its own with the
 * first. */
void have_sanitizers_thread(void);

int count_threads(void);

/* Waits for those above the number expected, but not for long: a joined thread is listed for a
 * moment longer. */
int count_threads_after(int expected);

#endif

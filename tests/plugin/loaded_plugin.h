/* SPDX-License-Identifier: BSD-3-Clause
 *
 * loaded_plugin.h: attention_plugin as its hosts load it. They are linked with the C library alone.
 */
#ifndef PLUGIN_LOADED_PLUGIN_H
#define PLUGIN_LOADED_PLUGIN_H

#include <stdbool.h>

typedef struct loaded_plugin {
    void *handle;
    int (*compute)(void);
    int (*compute_with_own_context)(void);
    int (*fail)(void);
} loaded_plugin;

/* Both say what is wrong on stderr, and end the process then. */
loaded_plugin load_plugin(const char *path);

/* Whether this C library unloads at all; musl keeps what it has loaded. */
bool code_is_unloaded(void);

/* Closes it, and makes sure that its code has left the process where it does. */
void unload_plugin(const loaded_plugin *plugin, const char *path);

/* Says what went wrong in which round and ends the process, unless `status` is 0. */
void expect_zero(int status, const char *what, int round);

#endif

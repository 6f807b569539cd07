/* SPDX-License-Identifier: BSD-3-Clause
 *
 * loaded_plugin.c: see loaded_plugin.h.
 */
#include "loaded_plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void end_with(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why != NULL ? why : "no reason given");
    exit(1);
}

/* dlsym returns an object pointer for functions too. */
static void look_up(void *handle, const char *name, void *function_pointer) {
    void *address = dlsym(handle, name);
    if (address == NULL) {
        end_with(name, dlerror());
    }
    memcpy(function_pointer, &address, sizeof address);
}

loaded_plugin load_plugin(const char *path) {
    loaded_plugin plugin = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (plugin.handle == NULL) {
        end_with(path, dlerror());
    }
    look_up(plugin.handle, "plugin_compute", &plugin.compute);
    look_up(plugin.handle, "plugin_compute_with_own_context", &plugin.compute_with_own_context);
    look_up(plugin.handle, "plugin_fail", &plugin.fail);
    return plugin;
}

bool code_is_unloaded(void) {
#ifdef __GLIBC__
    return true;
#else
    return false;
#endif
}

void unload_plugin(const loaded_plugin *plugin, const char *path) {
    if (dlclose(plugin->handle) != 0) {
        end_with(path, dlerror());
    }
    if (code_is_unloaded() && dlopen(path, RTLD_NOW | RTLD_NOLOAD) != NULL) {
        end_with(path, "still in the process after dlclose");
    }
}

void expect_zero(int status, const char *what, int round) {
    if (status != 0) {
        fprintf(stderr, "%s, round %d: got %d\n", what, round, status);
        exit(1);
    }
}

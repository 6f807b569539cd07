/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_loaded.c: the BLAS is loaded by the first call that needs it, and stays. The module with its
 * functions is a library like any other, so packages and wheels see what it needs, and the loader
 * finds the BLAS where it would have found that of the library itself.
 */
#include <dlfcn.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/process_identity.h"
#include "base/process_once.h"
#include "blas_library/blas_functions.h"
#include "blas_library/thread_trial.h"

enum { MOST_PATH_BYTES = 4096, REASON_BYTES = 320 };

/* NULL until it is asked for; what could not be had then is not there for good, since plans of one
 * call count on what its others found. */
static _Atomic(const attni_blas_functions *) loaded;
static const attni_blas_functions nothing;
static char reason[REASON_BYTES]; /* why it is nothing, written before */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* held by the one that loads */
static attni_process_once once;
static _Atomic uint64_t first_process; /* to load; 0 before */

/* ---- fork ---- */

/* A child must not find a BLAS that its parent has loaded by half. */
static void wait_for_loading(void) {
    pthread_mutex_lock(&mutex);
}

static void go_on(void) {
    pthread_mutex_unlock(&mutex);
}

static void begin_anew(void) {
    pthread_mutex_init(&mutex, NULL);
}

/* Handlers that come before a fork run the last one registered first: BLAS's own, registered while
 * it is loaded, come before this one, which waits for the rest of the loading. */
static void start_process(void) {
    begin_anew();
    uint64_t nobody = 0;
    if (atomic_compare_exchange_strong(&first_process, &nobody, attni_process_identity())) {
        (void)pthread_atfork(wait_for_loading, go_on, begin_anew);
    }
}

/* ---- loading ---- */

/* A folder that glibc's loader puts for the one that this code was loaded from. */
#ifdef __GLIBC__
#define OWN_FOLDER "$ORIGIN/"
#else
#define OWN_FOLDER NULL
#endif

/* The module's path: beside the file that this code is in. Where that was found by a path that
 * depends on the working folder, another folder may be that by now, with somebody else's files in
 * it: the loader remembers which one it was. Returns whether it is known. */
static bool find_module(char path[MOST_PATH_BYTES]) {
    Dl_info here;
    if (dladdr(&loaded, &here) == 0 || here.dli_fname == NULL) {
        return false;
    }
    const bool is_absolute = here.dli_fname[0] == '/';
    const char *folder = is_absolute ? here.dli_fname : OWN_FOLDER;
    if (folder == NULL) {
        return false;
    }
    const int folder_bytes = (int)(strrchr(folder, '/') - folder + 1);
    const int bytes =
        snprintf(path, MOST_PATH_BYTES, "%.*s%s", folder_bytes, folder, ATTNI_BLAS_MODULE);
    return bytes > 0 && bytes < MOST_PATH_BYTES;
}

typedef const attni_blas_functions *get_function(const char **why);

/* dlsym returns an object pointer for functions too. */
static get_function *find_getter(void *module) {
    void *address = dlsym(module, "attni_blas_functions_get");
    get_function *get = NULL;
    memcpy(&get, &address, sizeof get);
    return get;
}

static const attni_blas_functions *fail(const char *why) {
    (void)snprintf(reason, sizeof reason, "%s", why);
    return &nothing;
}

static const attni_blas_functions *load(void) {
    char path[MOST_PATH_BYTES];
    if (!attni_can_start_blas_threads()) {
        return fail("no thread could be started, without which an OpenBLAS ends the process that "
                    "loads it: allow more, or set OPENBLAS_NUM_THREADS=1");
    }
    if (!find_module(path)) {
        return fail("the library does not know where it lies itself");
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    get_function *get = module != NULL ? find_getter(module) : NULL;
    if (get == NULL) {
        return fail(dlerror());
    }
    const attni_blas_functions *functions = get(NULL);
    return functions->struct_size == sizeof *functions
               ? functions
               : fail("its module " ATTNI_BLAS_MODULE " is of another release");
}

/* Threads that a BLAS starts keep what they inherit: neither the caller's rounding nor its signals.
 */
static const attni_blas_functions *load_undisturbed(void) {
    sigset_t every_signal;
    sigset_t callers_mask;
    fenv_t callers_environment;
    sigfillset(&every_signal);
    pthread_sigmask(SIG_SETMASK, &every_signal, &callers_mask);
    fegetenv(&callers_environment);
    fesetenv(FE_DFL_ENV);
    const attni_blas_functions *functions = load();
    fesetenv(&callers_environment);
    pthread_sigmask(SIG_SETMASK, &callers_mask, NULL);
    return functions;
}

static const attni_blas_functions *load_once(void) {
    attni_once_per_process(&once, start_process);
    pthread_mutex_lock(&mutex);
    const attni_blas_functions *functions = atomic_load(&loaded);
    if (functions == NULL) {
        functions = load_undisturbed();
        atomic_store(&loaded, functions);
    }
    pthread_mutex_unlock(&mutex);
    return functions;
}

const attni_blas_functions *attni_blas_functions_get(const char **why) {
    const attni_blas_functions *functions = atomic_load(&loaded);
    functions = functions != NULL ? functions : load_once();
    if (why != NULL) {
        *why = reason;
    }
    return functions != &nothing ? functions : NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_value.c: a POSIX key, made by the first thread that sets a pointer.
 */
#include "base/thread_value.h"

#include <pthread.h>
#include <stddef.h>

enum { NO_KEY_YET = 0, NO_KEY_ANY_MORE = -1 };

static bool find_key(attni_thread_value *value, pthread_key_t *key) {
    const int64_t index = atomic_load_explicit(&value->key_index, memory_order_acquire);
    *key = (pthread_key_t)(index - 1);
    return index > NO_KEY_YET;
}

/* The hook's step. The pointers of other threads are left behind: only their own threads may free
 * them. */
static void forget_key(attni_unload_step *step) {
    attni_thread_value *value = (attni_thread_value *)(void *)step;
    pthread_key_t key;
    if (!find_key(value, &key)) {
        return;
    }
    atomic_store(&value->key_index, NO_KEY_ANY_MORE);
    void *const own = pthread_getspecific(key);
    pthread_setspecific(key, NULL);
    pthread_key_delete(key);
    if (own != NULL && value->release != NULL) {
        value->release(own);
    }
}

/* Of several threads that make a key at the same time one keeps it: nobody waits, so that there is
 * nothing a forked child could wait for. */
static bool make_key(attni_thread_value *value, pthread_key_t *key) {
    if (attni_is_unloading() || pthread_key_create(key, value->release) != 0) {
        return false;
    }
    int64_t index = NO_KEY_YET;
    if (atomic_compare_exchange_strong(&value->key_index, &index, (int64_t)*key + 1)) {
        value->forget.run = forget_key;
        attni_at_unload(&value->forget);
        return true;
    }
    pthread_key_delete(*key);
    return find_key(value, key);
}

void *attni_thread_value_get(attni_thread_value *value) {
    pthread_key_t key;
    return find_key(value, &key) ? pthread_getspecific(key) : NULL;
}

bool attni_thread_value_set(attni_thread_value *value, void *pointer) {
    pthread_key_t key;
    return (find_key(value, &key) || make_key(value, &key)) &&
           pthread_setspecific(key, pointer) == 0;
}

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live_threads.c: see live_threads.h.
 */
#include "live_threads.h"

#include <dirent.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static void *note_number(void *data) {
    *(pid_t *)data = gettid();
    return NULL;
}

void have_sanitizers_thread(void) {
    pthread_t thread;
    pid_t number = 0;
    if (pthread_create(&thread, NULL, note_number, &number) != 0) {
        return;
    }
    pthread_join(thread, NULL);
    char path[50];
    snprintf(path, sizeof path, "/proc/self/task/%ld", (long)number);
    for (int i = 0; i < 2000 && access(path, F_OK) == 0; ++i) {
        usleep(1000);
    }
}

int count_threads(void) {
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *one = tasks != NULL ? readdir(tasks) : NULL; one != NULL;
         one = readdir(tasks)) {
        threads += one->d_name[0] != '.';
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    return threads;
}

int count_threads_after(int expected) {
    int threads = count_threads();
    for (int i = 0; i < 2000 && threads > expected; ++i) {
        usleep(1000);
        threads = count_threads();
    }
    return threads;
}

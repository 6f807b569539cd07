/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live_threads.c: see live_threads.h.
 */
#include "live_threads.h"

#include <dirent.h>
#include <stddef.h>
#include <unistd.h>

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

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * limits_probe.c: the process that measures. It is asked a number of threads and answers with a
 * machine_limits; it ends when its asker has closed the channel.
 */
#include "limits_probe.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine_limits.h"
#include "program_exit.h"

static const double FMA_SECONDS = 0.05;
static const double READ_SECONDS = 0.15;

static void answer_questions(int channel) {
    int threads = 0;
    while (read(channel, &threads, sizeof threads) == (ssize_t)sizeof threads) {
        const machine_limits limits = {attn_limit_fma_flops(threads, FMA_SECONDS),
                                       attn_limit_read_bytes(threads, READ_SECONDS)};
        if (write(channel, &limits, sizeof limits) != (ssize_t)sizeof limits) {
            break;
        }
    }
}

int limits_probe_start(limits_probe *probe) {
    int channels[2];
    *probe = (limits_probe){0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channels) != 0) {
        return program_fail(EXIT_COMPUTATION, "limits: %s", strerror(errno));
    }
    const pid_t process = fork();
    if (process == 0) {
        (void)close(channels[0]);
        answer_questions(channels[1]);
        _exit(0);
    }
    (void)close(channels[1]);
    if (process < 0) {
        (void)close(channels[0]);
        return program_fail(EXIT_COMPUTATION, "limits: %s", strerror(errno));
    }
    *probe = (limits_probe){process, channels[0]};
    return EXIT_DONE;
}

void limits_probe_raise(const limits_probe *probe, int threads, machine_limits *best) {
    machine_limits now = {0};
    if (probe->process == 0 ||
        send(probe->channel, &threads, sizeof threads, MSG_NOSIGNAL) != (ssize_t)sizeof threads ||
        read(probe->channel, &now, sizeof now) != (ssize_t)sizeof now) {
        return;
    }
    best->fma_flops = now.fma_flops > best->fma_flops ? now.fma_flops : best->fma_flops;
    best->read_bytes = now.read_bytes > best->read_bytes ? now.read_bytes : best->read_bytes;
}

void limits_probe_stop(limits_probe *probe) {
    if (probe->process != 0) {
        (void)close(probe->channel);
        (void)waitpid(probe->process, NULL, 0);
        probe->process = 0;
    }
}

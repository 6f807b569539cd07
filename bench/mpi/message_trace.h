/* SPDX-License-Identifier: BSD-3-Clause
 *
 * message_trace.h: of a ring's messages, when they were under way and who waited for them.
 */
#ifndef MESSAGE_TRACE_H
#define MESSAGE_TRACE_H

/* Means over the ranks, in seconds of one call. A rank that waits for a message which the other end
 * has not begun with waits for that rank's work; only from when both have begun is it the message
 * that is waited for: what is shown of it, the rest is hidden. */
typedef struct message_trace {
    double processor;  /* of the call but for looks and waits: what it computes */
    double looked;     /* in MPI_Testall */
    double waited;     /* for work and for messages, and where ranks agree */
    double shown;      /* in MPI_Waitall, for messages beside which something was computed */
    double shown_home; /* and for the one beside which nothing was left: sums that go home */
} message_trace;

/* The processor's seconds for this process, which other programs do not lengthen by taking turns. */
double trace_processor_seconds(void);

void trace_begin(void);

/* What was seen since. Collective. */
message_trace trace_end(void);

#endif

/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process_identity.h: which process this is, for state that is good in one process only. A number
 * of the system's alone does not tell: a child in a process namespace of its own may have its
 * parent's, and numbers come round.
 */
#ifndef ATTNI_BASE_PROCESS_IDENTITY_H
#define ATTNI_BASE_PROCESS_IDENTITY_H

#include <stdint.h>

/* Never 0; another in a child than in any of those it descends from, once one of them has asked. */
uint64_t attni_process_identity(void);

#endif

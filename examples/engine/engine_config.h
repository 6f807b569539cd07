/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_config.h: sizes of a model, from the config.json of its checkpoint.
 */
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

#include <stddef.h>

#include "engine_model.h"

/* 0, or -1 with one line in `error` that names the file and what of it is missing, out of range or
 * not computed here. */
int engine_config_read(const char *path, engine_config *config, char *error, size_t error_bytes);

#endif

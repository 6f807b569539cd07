/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_parameters.h: what a layer keeps of a parameter it is given.
 */
#ifndef ATTENTION_TESTS_ORACLE_PARAMETERS_H
#define ATTENTION_TESTS_ORACLE_PARAMETERS_H

#include "support/oracle_mha.h"

/* A parameter's values in C order become the numbers that are kept of them as `dtype`: rounded; of
 * int8 those of a matrix are scales times integers, by the text of multihead.h. */
void oracle_keep_parameter(const oracle_parameter *parameter, int32_t dtype, double *values);

#endif

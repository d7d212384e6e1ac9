/* Included before every file of a library whose steps are traced: each step hands its result to qcc_after_step. */
#ifndef QCC_TRACE_H
#define QCC_TRACE_H

#include <stdint.h>

void qcc_after_step(const void *data, int32_t bytes);

#define QCC_AFTER_STEP(index, data, bytes) qcc_after_step(data, bytes)

#endif

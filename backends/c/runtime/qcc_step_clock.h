/* Included before every file of a library whose steps are timed: each step tells the clock that it has ended. */
#ifndef QCC_STEP_CLOCK_H
#define QCC_STEP_CLOCK_H

#include <stdint.h>

void qcc_step_ended(int32_t index);

#define QCC_AFTER_STEP(index, data, bytes) qcc_step_ended(index)

#endif

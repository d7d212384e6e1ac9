/* Included before every file of a library whose steps are timed: each step calls qcc_step_done when it is through. */
#ifndef QCC_STEP_TIMES_H
#define QCC_STEP_TIMES_H

void qcc_step_done(int index);

#define QCC_AFTER_STEP(index, data, bytes) qcc_step_done(index)

#endif

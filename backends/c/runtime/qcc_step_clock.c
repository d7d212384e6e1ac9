/* The clock of a library whose steps are timed: for one thread, and one such library in a process. Needs POSIX, that is
 * _POSIX_C_SOURCE on the command line.
 */
#include "qcc_step_clock.h"

#include <stddef.h>
#include <time.h>

typedef int qcc_run(void *arena, const void *in, void *out);

int qcc_time_steps(qcc_run *run, void *arena, const void *in, void *out, double *times);
double qcc_clock_cost(void);

static double *step_ends; /* NULL: nobody looks */

static double nanoseconds(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

void qcc_step_ended(int32_t index) {
  if (step_ends != NULL) {
    step_ends[index] = nanoseconds();
  }
}

/* One inference. times[0] becomes the time of its start, times[1 + i] that of the end of step i; nanoseconds. */
int qcc_time_steps(qcc_run *run, void *arena, const void *in, void *out, double *times) {
  int status;
  step_ends = times + 1;
  times[0] = nanoseconds();
  status = run(arena, in, out);
  step_ends = NULL;
  return status;
}

/* Nanoseconds that looking at the clock takes. */
double qcc_clock_cost(void) {
  double least = 1e9;
  int i;
  for (i = 0; i < 1000; ++i) {
    const double start = nanoseconds(), end = nanoseconds();
    least = end - start < least ? end - start : least;
  }
  return least;
}

/* Calls a library written by qcc many times: what an inference takes a program in C. run: where the address of NAME_run is, or of NAME_run_parallel where
 * pool is not NULL. Returns the first status that is not 0. */
#include <stddef.h>

typedef int serial_function(void *arena, const void *in, void *out);
typedef int parallel_function(void *pool, void *arena, const void *in, void *out);
typedef union {
  serial_function *serial;
  parallel_function *parallel;
} run_function;

int call_loop(const run_function *run, void *pool, void *arena, const void *in, void *out, long calls) {
  int status = 0;
  for (long i = 0; i < calls && status == 0; ++i) {
    status = pool == NULL ? run->serial(arena, in, out) : run->parallel(pool, arena, in, out);
  }
  return status;
}

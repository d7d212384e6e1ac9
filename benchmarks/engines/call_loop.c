/* Calls a library written by qcc many times: what an inference takes a program in C. Returns the first status that is
 * not 0. */
typedef int run_function(void *arena, const void *in, void *out);

int call_loop(run_function *run, void *arena, const void *in, void *out, long calls) {
  int status = 0;
  for (long i = 0; i < calls && status == 0; ++i) status = run(arena, in, out);
  return status;
}

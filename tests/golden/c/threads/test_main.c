/* Checks residual_net on this machine: every test vector must give the expected bytes. Returns 0 when all do. */
#include "residual_net.h"
#include "residual_net_vectors.h"
#include "qcc_kernels.h"

#include <stdio.h>
#include <string.h>

QCC_ALIGNED(RESIDUAL_NET_ARENA_ALIGN) static char arena[RESIDUAL_NET_ARENA_BYTES];
QCC_ALIGNED(RESIDUAL_NET_ARENA_ALIGN) static char in[RESIDUAL_NET_INPUT_BYTES];
QCC_ALIGNED(RESIDUAL_NET_ARENA_ALIGN) static char out[RESIDUAL_NET_OUTPUT_BYTES];
static qcc_pool pool;

static int differs(int vector) { return memcmp(out, residual_net_vector_outputs[vector], sizeof out) != 0; }

int main(void) {
  int failed = 0;
  int i;
  if (qcc_pool_start(&pool, RESIDUAL_NET_THREADS) != 0) {
    printf("residual_net: no threads\n");
    return 1;
  }
  for (i = 0; i < RESIDUAL_NET_VECTORS; ++i) {
    memcpy(in, residual_net_vector_inputs[i], sizeof in);
    memset(out, 0, sizeof out);
    if (residual_net_run(arena, (const int8_t *)(const void *)in, (int8_t *)(void *)out) != 0 || differs(i)) {
      ++failed;
      continue;
    }
    memset(out, 0, sizeof out);
    if (residual_net_run_parallel(&pool, arena, (const int8_t *)(const void *)in, (int8_t *)(void *)out) != 0 ||
        differs(i)) {
      ++failed;
    }
  }
  qcc_pool_stop(&pool);
  printf("residual_net: %d of %d test vectors passed\n", RESIDUAL_NET_VECTORS - failed, RESIDUAL_NET_VECTORS);
  return failed != 0;
}

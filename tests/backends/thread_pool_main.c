/* Runs made-up stages with pools of several sizes, and compares with one thread. Returns 0 when all is well. */
#define _POSIX_C_SOURCE 200112L
#include "qcc_threads.h"
#include <stdio.h>
#include <time.h>

static int32_t sums[QCC_THREADS_MAX * 16];
static int32_t order[64];

/* Stage s writes 16 * part + s % 16 from what stage s - 1 wrote at the next part. */
static void stage(void *context, int32_t s, int32_t part) {
  const int32_t parts = *(const int32_t *)context;
  const int32_t next = (part + 1) % parts;
  const int32_t before = s == 0 ? part : sums[16 * next + (s - 1) % 16];
  sums[16 * part + s % 16] = 3 * before + s + part;
  if (part == 0 && s < 64) {
    order[s] = s;
  }
}

static qcc_pool pool;

int main(void) {
  static const int32_t sizes[] = {1, 2, 3, 5, 8};
  int32_t i, parts, repeat, k;
  if (qcc_pool_start(&pool, 0) == 0 || qcc_pool_start(&pool, QCC_THREADS_MAX + 1) == 0) {
    return 1;
  }
  for (i = 0; i < 5; ++i) {
    if (qcc_pool_start(&pool, sizes[i]) != 0) {
      return 2;
    }
    for (repeat = 0; repeat < 200; ++repeat) {
      for (parts = 1; parts < 8; parts += 2) {
        static int32_t expected[QCC_THREADS_MAX * 16];
        for (k = 0; k < QCC_THREADS_MAX * 16; ++k) {
          sums[k] = 0;
        }
        qcc_pool_run(NULL, stage, &parts, 9, parts, repeat % 2);
        for (k = 0; k < QCC_THREADS_MAX * 16; ++k) {
          expected[k] = sums[k];
          sums[k] = 0;
        }
        qcc_pool_run(&pool, stage, &parts, 9, parts, repeat % 2);
        for (k = 0; k < QCC_THREADS_MAX * 16; ++k) {
          if (sums[k] != expected[k]) {
            return 3;
          }
        }
      }
      if (repeat % 50 == 0) { /* long enough for the workers to fall asleep */
        const struct timespec pause = {0, 3000000};
        (void)nanosleep(&pause, NULL);
      }
    }
    qcc_pool_stop(&pool);
  }
  puts("done");
  return 0;
}

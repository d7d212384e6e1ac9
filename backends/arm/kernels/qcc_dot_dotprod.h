/* Dot products of int8 with the dot product extension: 16 bytes of weights are 4 channels of 4 taps. */
#ifndef QCC_DOT_DOTPROD_H
#define QCC_DOT_DOTPROD_H

#include "qcc_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "this library needs a processor with the dot product extension: compile with -march=armv8.2-a+dotprod"
#endif

/* acc[v] += the four taps of lane `lane` of x times w[v]. */
QCC_INLINE void qcc_dot(const int vectors, int32x4_t *acc, const int8x16_t *w, int8x16_t x, const int lane) {
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    switch (lane) {
      case 0: acc[v] = vdotq_laneq_s32(acc[v], w[v], x, 0); break;
      case 1: acc[v] = vdotq_laneq_s32(acc[v], w[v], x, 1); break;
      case 2: acc[v] = vdotq_laneq_s32(acc[v], w[v], x, 2); break;
      default: acc[v] = vdotq_laneq_s32(acc[v], w[v], x, 3); break;
    }
  }
}

#endif

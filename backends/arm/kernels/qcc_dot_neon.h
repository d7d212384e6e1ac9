/* Dot products of int8 by widening multiply-adds: two products in each lane of 16 bits, which then are added pairwise.
 *
 * Weights lie in [-127, 127], so two products fit: 2 * 127 * 128 < 2^15. The first 8 bytes of 16 are taps 0, 1 of channels 0
 * and 2, and taps 2, 3 of channels 1 and 3; the last 8 the other taps of these: an activation quad, repeated, meets the
 * first 8, with its halves exchanged it meets the last 8.
 */
#ifndef QCC_DOT_NEON_H
#define QCC_DOT_NEON_H

#include "qcc_neon.h"

/* acc[v] += the four taps of lane `lane` of x times w[v]. */
QCC_INLINE void qcc_dot(const int vectors, int32x4_t *acc, const int8x16_t *w, int8x16_t x, const int lane) {
  const int32x4_t words = vreinterpretq_s32_s8(x);
#if defined(__aarch64__)
  const int32x4_t quad = lane == 0   ? vdupq_laneq_s32(words, 0)
                         : lane == 1 ? vdupq_laneq_s32(words, 1)
                         : lane == 2 ? vdupq_laneq_s32(words, 2)
                                     : vdupq_laneq_s32(words, 3);
  const int8x16_t straight = vreinterpretq_s8_s32(quad);
  const int8x16_t crossed = vreinterpretq_s8_s16(vrev32q_s16(vreinterpretq_s16_s32(quad)));
#else /* halves are enough */
  const int32x2_t quad = lane == 0   ? vdup_lane_s32(vget_low_s32(words), 0)
                         : lane == 1 ? vdup_lane_s32(vget_low_s32(words), 1)
                         : lane == 2 ? vdup_lane_s32(vget_high_s32(words), 0)
                                     : vdup_lane_s32(vget_high_s32(words), 1);
  const int8x8_t straight = vreinterpret_s8_s32(quad);
  const int8x8_t crossed = vreinterpret_s8_s16(vrev32_s16(vreinterpret_s16_s32(quad)));
#endif
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
#if defined(__aarch64__)
    int16x8_t products = vmull_s8(vget_low_s8(w[v]), vget_low_s8(straight));
    products = vmlal_high_s8(products, w[v], crossed);
#else
    int16x8_t products = vmull_s8(vget_low_s8(w[v]), straight);
    products = vmlal_s8(products, vget_high_s8(w[v]), crossed);
#endif
    acc[v] = vpadalq_s16(acc[v], products);
  }
}

#endif

/* Requantization, the one way every scalar kernel does it.
 *
 *   requantize(acc) = saturate(((acc * multiplier + 2^(shift - 1)) >> shift) + zero_point)
 *
 * in 64 bits: one rounding, ties upward (TOSA SINGLE_ROUND). multiplier is in [2^30, 2^31), shift in [1, 62], so
 * |acc * multiplier| + 2^(shift - 1) <= 2^62 + 2^61: no overflow for any int32 accumulator.
 * A kernel that defines QCC_ROUNDS_TWICE rounds as gemmlowp (TOSA DOUBLE_ROUND) instead.
 * Reference: requantize in qcc/ir/fixedpoint.py.
 */
#ifndef QCC_REQUANTIZE_H
#define QCC_REQUANTIZE_H

#include <stdint.h>

/* C leaves >> of a negative number to the implementation. All compilers we know shift arithmetically; one that
 * does not is refused here. */
typedef char qcc_arithmetic_shift_required[((-1) >> 1) == -1 ? 1 : -1];

/* Clamp to [low, high], which lies within int8. */
static inline int8_t qcc_saturate_s8(int32_t value, int32_t low, int32_t high) {
  value = value < low ? low : value;
  value = value > high ? high : value;
  return (int8_t)value;
}

static inline int8_t qcc_requantize_s8(int32_t acc, int32_t multiplier, int32_t shift, int32_t zero_point,
                                       int32_t low, int32_t high) {
#ifdef QCC_ROUNDS_TWICE
  /* at 2^31 and then, ties away from zero: the second rounding of a shift over 31 moves the tie by 2^30 */
  const int64_t again = shift > 31 ? (int64_t)1 << 30 : 0;
  const int64_t rounding = ((int64_t)1 << (shift - 1)) + (acc < 0 ? -again : again);
#else
  const int64_t rounding = (int64_t)1 << (shift - 1);
#endif
  int64_t value = (((int64_t)acc * multiplier + rounding) >> shift) + zero_point;
  value = value < low ? low : value;
  value = value > high ? high : value;
  return (int8_t)value;
}

#endif

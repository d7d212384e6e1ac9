/* s32_softmax_scalar: softmax over the last axis of int32 accumulators, to int8.
 *
 *   u = (input[r][c] * multiplier + 2^(shift-1)) >> shift: the real value times log2(e), in steps of 2^-16
 *   d = max(u) - u, f = d mod 2^16
 *   e = (table[f / 256] * table[256 + f mod 256] / 2^8) / 2^(d / 2^16), rounded down at each division
 *   output[r][c] = min((256 e + total / 2) / total, 255) - 128, with total = sum e
 *
 * input: int32[rows][count]; output: int8[rows][count]. table: int32[512], 2^16 * 2^(-i / 2^8) and 2^15 * 2^(-i / 2^16).
 * multiplier, shift: int32[channels], channels is 1 or count. The largest e is 2^23, so total >= 2^23; it has 64 bits.
 * Reference: WideSoftmax.int_ref in qcc/ir/ops/softmax.py, which states the error.
 */
#include "qcc_integer.h"
#include "qcc_softmax.h"

static int64_t logit(int32_t x, int32_t multiplier, int32_t shift) {
  return ((int64_t)x * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
}

/* 2^23 * 2^(-d / 2^16) */
static int32_t power(const int32_t *table, int64_t d) {
  const int32_t f = (int32_t)(d & 0xFFFF);
  const int64_t halvings = d >> 16;
  const uint32_t product = (uint32_t)table[f >> 8] * (uint32_t)table[256 + (f & 0xFF)];
  return (int32_t)((product >> 8) >> (halvings < 31 ? halvings : 31));
}

void qcc_s32_softmax_scalar(const qcc_wide_softmax_params *params, const int32_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            const int32_t *QCC_RESTRICT table, int8_t *QCC_RESTRICT output) {
  const int32_t count = params->count;
  const int32_t step = params->channels == 1 ? 0 : 1;
  for (int32_t r = 0; r < params->rows; ++r, input += count, output += count) {
    int64_t largest = INT64_MIN;
    int64_t total = 0;
    for (int32_t c = 0; c < count; ++c) {
      const int64_t u = logit(input[c], multiplier[c * step], shift[c * step]);
      largest = u > largest ? u : largest;
    }
    for (int32_t c = 0; c < count; ++c) {
      total += power(table, largest - logit(input[c], multiplier[c * step], shift[c * step]));
    }
    for (int32_t c = 0; c < count; ++c) {
      const int64_t e = power(table, largest - logit(input[c], multiplier[c * step], shift[c * step]));
      output[c] = (int8_t)(qcc_divide_to_255(e * 256 + total / 2, total) - 128);
    }
  }
}

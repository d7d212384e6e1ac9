/* wide_softmax_scalar: softmax over the last axis of activations or accumulators of any width, to 8 or 16 bits.
 *
 *   u = (input[r][c] * multiplier + 2^(shift-1)) >> shift: the real value times log2(e), in steps of 2^-16
 *   d = max(u) - u, f = d mod 2^16
 *   e = (table[f / 256] * table[256 + f mod 256] / 2^8) / 2^(d / 2^16), rounded down at each division
 *   output[r][c] = min((one * e + total / 2) / total, one - 1) + output_zero_point, with total = sum e
 *
 * input: int8, int16, int32 or int64 [rows][count], as input_bytes says; output: int8[rows][count] with one = 2^8 and
 * output_zero_point = -128, or int16 with one = 2^15 and 0. table: int32[512], 2^16 * 2^(-i / 2^8) and
 * 2^15 * 2^(-i / 2^16). multiplier, shift: int32[channels], channels is 1 or count. |input * multiplier| stays within 64
 * bits, as the compiler chose multipliers of fewer bits for int64.
 * Reference: WideSoftmax.int_ref in qcc/ir/ops/softmax.py, which states the error.
 */
#include "qcc_integer_registers.h"
#include "qcc_wide.h"

static int64_t load(const void *data, ptrdiff_t index, int32_t bytes) {
  if (bytes > 2) {
    return bytes == 8 ? ((const int64_t *)data)[index] : ((const int32_t *)data)[index];
  }
  return qcc_wide_load(data, index, bytes);
}

/* 2^23 * 2^(-d / 2^16) */
static int32_t power(const int32_t *table, int64_t d) {
  const int32_t f = (int32_t)(d & 0xFFFF);
  const int64_t halvings = d >> 16;
  const uint32_t product = (uint32_t)table[f >> 8] * (uint32_t)table[256 + (f & 0xFF)];
  return (int32_t)((product >> 8) >> (halvings < 31 ? halvings : 31));
}

/* min(dividend / divisor, 2^bits - 1), bit by bit: 32-bit processors have no 64-bit division. */
static int32_t divide(int64_t dividend, int64_t divisor, int32_t bits) {
  int32_t quotient = 0;
  for (int32_t bit = bits - 1; bit >= 0; --bit) {
    const int64_t part = divisor * ((int64_t)1 << bit);
    if (dividend >= part) {
      dividend -= part;
      quotient += 1 << bit;
    }
  }
  return quotient;
}

void qcc_wide_softmax_scalar(const qcc_any_softmax_params *params, const void *QCC_RESTRICT input,
                             const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                             const int32_t *QCC_RESTRICT table, void *QCC_RESTRICT output) {
  const qcc_any_softmax_params p = *params;
  const int32_t step = p.channels == 1 ? 0 : 1;
  ptrdiff_t at = 0;
  for (int32_t r = 0; r < p.rows; ++r, at += p.count) {
    int64_t largest = INT64_MIN;
    int64_t total = 0;
    for (int32_t pass = 0; pass < 3; ++pass) { /* the largest u, the sum of all e, the results */
      for (int32_t c = 0; c < p.count; ++c) {
        const int32_t s = shift[c * step];
        const int64_t product = load(input, at + c, p.input_bytes) * multiplier[c * step];
        const int64_t u = (product + ((int64_t)1 << (s - 1))) >> s;
        if (pass == 0) {
          largest = u > largest ? u : largest;
        } else if (pass == 1) {
          total += power(table, largest - u);
        } else {
          const int64_t e = power(table, largest - u);
          const int32_t y = divide(e * ((int64_t)1 << p.bits) + total / 2, total, p.bits) + p.output_zero_point;
          if (p.output_bytes == 2) {
            ((int16_t *)output)[at + c] = (int16_t)y;
          } else {
            ((int8_t *)output)[at + c] = (int8_t)y;
          }
        }
      }
    }
  }
}

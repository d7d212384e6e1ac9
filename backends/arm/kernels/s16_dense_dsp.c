/* s16_dense_dsp: s8_dense_dsp, one row times a matrix, for tensors with 8 or 16 bits.
 *
 * input    int8 or int16 [input_channels]
 * skip     int8 or int16 [output_channels], or NULL
 * weights  int8[output_channels / 4][input_channels / 4][4 outputs][4 inputs], both sizes zero-padded to multiples of 4. In
 *          front of int16 the second and the third input of four are exchanged: sxtb16 then has neighbours in a pair
 * channels int32[output_channels][4], padded likewise: bias with all zero_points folded in, multiplier, shift + up - 32, up
 * skip_multiplier  int32[output_channels], or NULL
 * output   int8 or int16 [output_channels]; may be written over a skip of its type
 *
 *   acc = bias[o] + sum w[o][c] * input[c] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Dense.int_ref in qcc/ir/ops/dense.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_dsp_wide.h"

/* Four inputs in two registers times four weights in `word`. */
#define QCC_FOUR(word, sum)                         \
  "sxtb16 %[t], " word "\n\t"                       \
  "sxtb16 " word ", " word ", ror #8\n\t"           \
  "smlad %[" sum "], %[t], %[x0], %[" sum "]\n\t"   \
  "smlad %[" sum "], " word ", %[x1], %[" sum "]\n\t"

/* Sums of four outputs. */
typedef struct {
  int32_t s0, s1, s2, s3;
} sums;

/* Adds the products of the inputs in x0 and x1 and the weights of four outputs at w. */
static inline __attribute__((always_inline)) sums add_four(sums s, uint32_t x0, uint32_t x1, const int8_t **w) {
  uint32_t t;
  __asm__("ldmia %[w]!, {r2, r3, r4, r5}\n\t" QCC_FOUR("r2", "s0") QCC_FOUR("r3", "s1") QCC_FOUR("r4", "s2")
              QCC_FOUR("r5", "s3")
          : [s0] "+r"(s.s0), [s1] "+r"(s.s1), [s2] "+r"(s.s2), [s3] "+r"(s.s3), [w] "+r"(*w), [t] "=&r"(t)
          : [x0] "r"(x0), [x1] "r"(x1)
          : "r2", "r3", "r4", "r5", "memory");
  return s;
}

static inline __attribute__((always_inline)) sums add_inputs(sums s, const void *input, int32_t count,
                                                             const int8_t **w, int32_t bytes) {
  const int8_t *x = (const int8_t *)input;
  for (int32_t n = count >> 2; n > 0; --n, x += 4 * bytes) {
    const uint32_t word = qcc_load4(x);
    if (bytes == 2) {
      s = add_four(s, word, qcc_load4(x + 4), w);
    } else {
      s = add_four(s, qcc_even_bytes(word), qcc_odd_bytes(word), w);
    }
  }
  return s;
}

void qcc_s16_dense_dsp(const qcc_dsp_wide_dense_params *params, const void *QCC_RESTRICT input, const void *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, void *output) {
  const qcc_dsp_wide_dense_params p = *params;
  const int32_t whole = p.input_channels & ~3, left = p.input_channels - whole;
  int16_t wide[4] = {0, 0, 0, 0}; /* the last inputs where they are no four */
  int8_t narrow[4] = {0, 0, 0, 0};
  for (int32_t k = 0; k < left; ++k) {
    const int32_t x = qcc_dsp_load(input, whole + k, p.input_bytes);
    wide[k] = (int16_t)x;
    narrow[k] = (int8_t)x;
  }
  const int8_t *w = weights;
  for (int32_t o = 0; o < p.output_channels; o += 4, channels += 16) {
    sums s = {channels[0], channels[4], channels[8], channels[12]};
    const int32_t count = left > 0 ? 4 : 0;
    if (p.input_bytes == 2) {
      s = add_inputs(s, input, whole, &w, 2);
      s = add_inputs(s, wide, count, &w, 2);
    } else {
      s = add_inputs(s, input, whole, &w, 1);
      s = add_inputs(s, narrow, count, &w, 1);
    }
    const int32_t sum[4] = {s.s0, s.s1, s.s2, s.s3};
    for (int32_t j = 0; j < 4 && o + j < p.output_channels; ++j) {
      const int32_t *own = channels + 4 * j;
      const qcc_dsp_channel c = qcc_dsp_wide_channel(own[1], own[2], p.output_zero_point);
      const int32_t acc =
          skip ? qcc_dsp_mac(sum[j], qcc_dsp_load(skip, o + j, p.skip_bytes), skip_multiplier[o + j]) : sum[j];
      qcc_dsp_store(output, o + j, p.output_bytes, acc, own[3], c, p.low, p.high);
    }
  }
}

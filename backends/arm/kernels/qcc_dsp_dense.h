/* One row times a matrix, with requantization and an optional residual operand, on pairs of int16.
 *
 * input    int8[input_channels]
 * skip     int8[output_channels], or NULL
 * weights  int8[output_channels / 4][input_channels / 4][4 outputs][4 inputs], both sizes zero-padded to multiples of 4
 * channels int32[output_channels][QCC_DSP_CHANNEL], padded likewise, see qcc_arm_dsp.h; all zero_points are folded in the bias
 * skip_multiplier  int32[output_channels], or NULL
 * output   int8[output_channels]; may be written over skip
 *
 *   acc = bias[o] + sum w[o][c] * input[c] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Dense.int_ref in qcc/ir/ops/dense.py, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_DSP_DENSE_H
#define QCC_DSP_DENSE_H

#include "qcc_arm_dsp.h"

/* Four inputs (even and odd ones in two registers) times four weights in `word`. */
#define QCC_FOUR(word, sum)                         \
  "sxtb16 %[t], " word "\n\t"                       \
  "sxtb16 " word ", " word ", ror #8\n\t"           \
  "smlad %[" sum "], %[t], %[even], %[" sum "]\n\t" \
  "smlad %[" sum "], " word ", %[odd], %[" sum "]\n\t"
/* Those in %[even] times the weights of four outputs at *w, which moves on. */
#define QCC_WORD                       \
  "ldmia %[w]!, {r2, r3, r4, r5}\n\t"  \
  "sxtb16 %[odd], %[even], ror #8\n\t" \
  "sxtb16 %[even], %[even]\n\t" QCC_FOUR("r2", "s0") QCC_FOUR("r3", "s1") QCC_FOUR("r4", "s2") QCC_FOUR("r5", "s3")
#define QCC_NEXT "ldr %[even], [%[x]], #4\n\t" QCC_WORD
#define QCC_WORDS(text, even_is)                                                                                      \
  __asm__(text                                                                                                        \
          : [s0] "+r"(s0), [s1] "+r"(s1), [s2] "+r"(s2), [s3] "+r"(s3), [w] "+r"(weights), [x] "+r"(x),               \
            [even] even_is(even), [odd] "=&r"(odd), [t] "=&r"(t)                                                      \
          :                                                                                                           \
          : "r2", "r3", "r4", "r5", "memory")

static inline void multiply_row(const qcc_dsp_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                                const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output) {
  const qcc_dsp_dense_params p = *params;
  const int32_t narrow = p.low > -128 || p.high < 127;
  uint32_t rest = 0; /* the last inputs where they do not fill a word */
  for (int32_t k = p.input_channels & ~3; k < p.input_channels; ++k) {
    rest |= (uint32_t)(uint8_t)input[k] << (8 * (k & 3));
  }
  for (int32_t o = 0; o < p.output_channels; o += 4, channels += 4 * QCC_DSP_CHANNEL) {
    const int8_t *x = input;
    int32_t s0 = channels[0], s1 = channels[QCC_DSP_CHANNEL], s2 = channels[2 * QCC_DSP_CHANNEL];
    int32_t s3 = channels[3 * QCC_DSP_CHANNEL], n = p.input_channels;
    uint32_t even, odd, t;
    for (; n >= 16; n -= 16) {
      QCC_WORDS(QCC_NEXT QCC_NEXT QCC_NEXT QCC_NEXT, "=&r");
    }
    for (; n >= 4; n -= 4) {
      QCC_WORDS(QCC_NEXT, "=&r");
    }
    if (n > 0) {
      even = rest;
      QCC_WORDS(QCC_WORD, "+r");
    }
    const int32_t s[4] = {s0, s1, s2, s3};
    for (int32_t j = 0; j < 4 && o + j < p.output_channels; ++j) {
      const qcc_dsp_channel c = qcc_dsp_channel_at(channels + QCC_DSP_CHANNEL * j, p.output_zero_point);
      const int32_t sum = skip ? s[j] + skip[o + j] * skip_multiplier[o + j] : s[j];
      int32_t value = qcc_dsp_requantize(sum, c);
      if (narrow) {
        value = qcc_dsp_clamp(value, p.low, p.high);
      }
      output[o + j] = (int8_t)value;
    }
  }
}

#endif

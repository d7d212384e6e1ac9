/* f32_fp16_conv2d_scalar: float convolution with weights of IEEE 754 binary16.
 *
 * A row is uint16[channels of the block]: the bits of finite numbers, which become floats exactly, whether or not the
 * processor knows binary16 or flushes subnormal floats: sign, and (1024 + fraction) * 2^(exponent - 25), or
 * fraction * 2^-24 where the exponent is 0. scale is NULL.
 */
#include "qcc_float.h"
#include "qcc_math.h"

typedef uint16_t qcc_code;
#define QCC_ROW(width) (width)

static inline void decode(const qcc_code *QCC_RESTRICT row, const float *scale, int32_t width,
                          float *QCC_RESTRICT w) {
  (void)scale;
  for (int32_t o = 0; o < width; ++o) {
    const uint32_t bits = row[o] & 0x7fffu;
    const uint32_t normal = (bits << 13) + 0x38000000u; /* the exponents' biases differ by 112 */
    const uint32_t small = qcc_bits_of_float((float)(int32_t)bits * 5.9604644775390625e-8f);
    w[o] = qcc_float_of_bits((bits < 1024u ? small : normal) | (row[o] & 0x8000u) << 16);
  }
}

#include "qcc_stored_conv2d.h"

void qcc_f32_fp16_conv2d_scalar(const qcc_f32_stored_conv2d_params *params, const float *QCC_RESTRICT input,
                                const uint16_t *QCC_RESTRICT weights, const float *QCC_RESTRICT scale,
                                const float *QCC_RESTRICT bias, float *QCC_RESTRICT output) {
  stored_conv2d(params, input, weights, scale, bias, output);
}

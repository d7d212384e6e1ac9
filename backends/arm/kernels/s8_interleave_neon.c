/* s8_interleave_neon: planes of 2 to 4 channels to pixels, a transpose of bytes.
 *
 *   output[n][i][c] = input[n][c][i]
 *
 * input   int8[batch][channels][pixels]
 * output  int8[batch][pixels][channels]; does not overlap input
 *
 * Reference: Transpose with perm (0, 2, 3, 1).
 */
#include "qcc_neon.h"

QCC_INLINE void image(const int channels, const int8_t *QCC_RESTRICT x, int32_t pixels, int8_t *QCC_RESTRICT output) {
  const ptrdiff_t plane = pixels;
  int32_t i = 0;
  for (; i + 16 <= pixels; i += 16, output += 16 * channels) {
    if (channels == 2) {
      const int8x16x2_t y = {{vld1q_s8(x + i), vld1q_s8(x + plane + i)}};
      vst2q_s8(output, y);
    } else if (channels == 3) {
      const int8x16x3_t y = {{vld1q_s8(x + i), vld1q_s8(x + plane + i), vld1q_s8(x + 2 * plane + i)}};
      vst3q_s8(output, y);
    } else {
      const int8x16x4_t y = {
          {vld1q_s8(x + i), vld1q_s8(x + plane + i), vld1q_s8(x + 2 * plane + i), vld1q_s8(x + 3 * plane + i)}};
      vst4q_s8(output, y);
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < channels; ++c) {
      *output++ = x[c * plane + i];
    }
  }
}

void qcc_s8_interleave_neon(const qcc_neon_interleave_params *params, const int8_t *QCC_RESTRICT input,
                            int8_t *QCC_RESTRICT output) {
  const ptrdiff_t bytes = (ptrdiff_t)params->channels * params->pixels;
  for (int32_t n = 0; n < params->batch; ++n, input += bytes, output += bytes) {
    switch (params->channels) {
      case 2: image(2, input, params->pixels, output); break;
      case 3: image(3, input, params->pixels, output); break;
      default: image(4, input, params->pixels, output); break;
    }
  }
}

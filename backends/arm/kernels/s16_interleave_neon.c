/* s16_interleave_neon: planes of 2 to 4 channels to pixels, a transpose of int16.
 *
 *   output[n][i][c] = input[n][c][i]
 *
 * input   int16[batch][channels][pixels]
 * output  int16[batch][pixels][channels]; does not overlap input
 *
 * Reference: Transpose with perm (0, 2, 3, 1).
 */
#include "qcc_neon_wide.h"

QCC_INLINE void image(const int channels, const int16_t *QCC_RESTRICT x, int32_t pixels, int16_t *QCC_RESTRICT output) {
  const ptrdiff_t plane = pixels;
  int32_t i = 0;
  for (; i + 8 <= pixels; i += 8, output += 8 * channels) {
    if (channels == 2) {
      const int16x8x2_t y = {{vld1q_s16(x + i), vld1q_s16(x + plane + i)}};
      vst2q_s16(output, y);
    } else if (channels == 3) {
      const int16x8x3_t y = {{vld1q_s16(x + i), vld1q_s16(x + plane + i), vld1q_s16(x + 2 * plane + i)}};
      vst3q_s16(output, y);
    } else {
      const int16x8x4_t y = {
          {vld1q_s16(x + i), vld1q_s16(x + plane + i), vld1q_s16(x + 2 * plane + i), vld1q_s16(x + 3 * plane + i)}};
      vst4q_s16(output, y);
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < channels; ++c) {
      *output++ = x[c * plane + i];
    }
  }
}

void qcc_s16_interleave_neon(const qcc_neon_wide_interleave_params *params, const int16_t *QCC_RESTRICT input,
                             int16_t *QCC_RESTRICT output) {
  const ptrdiff_t elements = (ptrdiff_t)params->channels * params->pixels;
  for (int32_t n = 0; n < params->batch; ++n, input += elements, output += elements) {
    switch (params->channels) {
      case 2: image(2, input, params->pixels, output); break;
      case 3: image(3, input, params->pixels, output); break;
      default: image(4, input, params->pixels, output); break;
    }
  }
}

/* s16_interleave_avx2: planes of 2 to 4 channels to pixels, a transpose of int16.
 *
 *   output[n][i][c] = input[n][c][i]
 *
 * input   int16[batch][channels][pixels]
 * output  int16[batch][pixels][channels]; does not overlap input
 *
 * 8 elements of each plane make `channels` vectors of 8 elements; two such groups are done at a time.
 * Reference: Transpose with perm (0, 2, 3, 1).
 */
#include "qcc_avx2_wide.h"

QCC_INLINE void image(const int channels, const int16_t *QCC_RESTRICT input, int32_t pixels,
                      int16_t *QCC_RESTRICT output) {
  __m256i shuffle[16]; /* element k of vector v is element (8 v + k) / channels of plane (8 v + k) % channels */
  for (int v = 0; v < channels; ++v) {
    for (int c = 0; c < channels; ++c) {
      int8_t index[16];
      for (int k = 0; k < 16; ++k) {
        const int element = 8 * v + k / 2;
        index[k] = (int8_t)(element % channels == c ? 2 * (element / channels) + k % 2 : -1); /* -1 makes zero */
      }
      shuffle[4 * v + c] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)index));
    }
  }
  int32_t i = 0;
  for (; i + 16 <= pixels; i += 16) {
    QCC_UNROLL
    for (int v = 0; v < channels; ++v) {
      __m256i y = _mm256_setzero_si256();
      QCC_UNROLL
      for (int c = 0; c < channels; ++c) {
        const __m256i x = qcc_load(input + (ptrdiff_t)c * pixels + i);
        y = _mm256_or_si256(y, _mm256_shuffle_epi8(x, shuffle[4 * v + c]));
      }
      int16_t *to = output + (ptrdiff_t)i * channels + 8 * v;
      _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(y));
      _mm_storeu_si128((__m128i *)(void *)(to + 8 * channels), _mm256_extracti128_si256(y, 1));
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < channels; ++c) {
      output[(ptrdiff_t)i * channels + c] = input[(ptrdiff_t)c * pixels + i];
    }
  }
}

void qcc_s16_interleave_avx2(const qcc_avx2_wide_interleave_params *params, const int16_t *QCC_RESTRICT input,
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

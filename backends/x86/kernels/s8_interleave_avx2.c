/* s8_interleave_avx2: planes of 2 to 4 channels to pixels, a transpose of bytes.
 *
 *   output[n][i][c] = input[n][c][i]
 *
 * input   int8[batch][channels][pixels]
 * output  int8[batch][pixels][channels]; does not overlap input
 *
 * 16 bytes of each plane make `channels` vectors of 16 bytes; two such groups are done at a time.
 * Reference: Transpose with perm (0, 2, 3, 1).
 */
#include "qcc_avx2.h"

QCC_INLINE void image(const int channels, const int8_t *QCC_RESTRICT input, int32_t pixels, int8_t *QCC_RESTRICT output) {
  __m256i shuffle[16]; /* byte k of vector v is byte (16 v + k) / channels of plane (16 v + k) % channels */
  for (int v = 0; v < channels; ++v) {
    for (int c = 0; c < channels; ++c) {
      int8_t index[16];
      for (int k = 0; k < 16; ++k) {
        index[k] = (int8_t)((16 * v + k) % channels == c ? (16 * v + k) / channels : -1); /* -1 makes zero */
      }
      shuffle[4 * v + c] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)index));
    }
  }
  int32_t i = 0;
  for (; i + 32 <= pixels; i += 32) {
    QCC_UNROLL
    for (int v = 0; v < channels; ++v) {
      __m256i y = _mm256_setzero_si256();
      QCC_UNROLL
      for (int c = 0; c < channels; ++c) {
        const __m256i x = qcc_load(input + (ptrdiff_t)c * pixels + i);
        y = _mm256_or_si256(y, _mm256_shuffle_epi8(x, shuffle[4 * v + c]));
      }
      int8_t *to = output + (ptrdiff_t)i * channels + 16 * v;
      _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(y));
      _mm_storeu_si128((__m128i *)(void *)(to + 16 * channels), _mm256_extracti128_si256(y, 1));
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < channels; ++c) {
      output[(ptrdiff_t)i * channels + c] = input[(ptrdiff_t)c * pixels + i];
    }
  }
}

void qcc_s8_interleave_avx2(const qcc_avx2_interleave_params *params, const int8_t *QCC_RESTRICT input,
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

/* Images in the workspace: padded, and in the type that the products want, int16 (2 bytes) or x + 128 as uint8 (1 byte). */
#ifndef QCC_AVX2_IMAGE_H
#define QCC_AVX2_IMAGE_H

#include "qcc_avx2.h"

/* `count` activations as elements of `size` bytes; of two bytes, less `zero`. */
QCC_INLINE void qcc_elements(const int size, int8_t *QCC_RESTRICT to, const int8_t *QCC_RESTRICT x, ptrdiff_t count,
                             int32_t zero) {
  const __m256i zeros = _mm256_set1_epi16((int16_t)zero);
  ptrdiff_t i = 0;
  if (size == 1) {
    for (; i + 32 <= count; i += 32) {
      qcc_store(to + i, _mm256_xor_si256(qcc_load(x + i), _mm256_set1_epi8(-128)));
    }
  }
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(x + i));
    if (size == 1) {
      _mm_storeu_si128((__m128i *)(void *)(to + i), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
    } else {
      qcc_store(to + 2 * i, _mm256_sub_epi16(_mm256_cvtepi8_epi16(bytes), zeros));
    }
  }
  for (; i < count; ++i) {
    const int16_t wide = (int16_t)(x[i] - zero);
    if (size == 1) {
      to[i] = (int8_t)(x[i] ^ -128);
    } else {
      __builtin_memcpy(to + 2 * i, &wide, 2);
    }
  }
}

/* `count` elements of value x. */
QCC_INLINE void qcc_fill(const int size, int8_t *to, int32_t x, ptrdiff_t count) {
  const __m256i value = size == 1 ? _mm256_set1_epi8((int8_t)(x ^ -128)) : _mm256_set1_epi16((int16_t)x);
  ptrdiff_t i = 0;
  for (; i + 32 <= size * count; i += 32) {
    qcc_store(to + i, value);
  }
  int8_t bytes[32];
  qcc_store(bytes, value);
  for (int k = 0; i < size * count; ++i, ++k) {
    to[i] = bytes[k];
  }
}

/* The padded image from its row `top` on (row 0 is the first of the padding): height x width pixels; zero: as above. */
QCC_INLINE void qcc_copy_padded(const int size, const qcc_avx2_conv2d_params *p, const int8_t *input, int8_t *to,
                                int32_t top, int32_t height, int32_t width, int32_t zero) {
  const ptrdiff_t c = p->input_channels, line = width * c;
  const int32_t before = p->pad_left < width ? p->pad_left : width;
  const int32_t inside = p->input_width < width - before ? p->input_width : width - before;
  int32_t y = 0;
  while (y < height) {
    const int32_t row = top + y - p->pad_top;
    if (row < 0 || row >= p->input_height) {
      qcc_fill(size, to + size * y * line, p->pad_value - (size == 1 ? 0 : zero), line);
      ++y;
    } else if (inside == width && width == p->input_width) { /* rows lie side by side */
      const int32_t rows = p->input_height - row < height - y ? p->input_height - row : height - y;
      qcc_elements(size, to + size * y * line, input + row * line, rows * line, zero);
      y += rows;
    } else {
      int8_t *at = to + size * y * line;
      qcc_fill(size, at, p->pad_value - (size == 1 ? 0 : zero), before * c);
      qcc_elements(size, at + size * before * c, input + (ptrdiff_t)row * p->input_width * c, inside * c, zero);
      qcc_fill(size, at + size * (before + inside) * c, p->pad_value - (size == 1 ? 0 : zero), (width - before - inside) * c);
      ++y;
    }
  }
}

/* Pixels of input under `count` pixels of output along one axis. */
QCC_INLINE int32_t qcc_reach(int32_t count, int32_t stride, int32_t kernel, int32_t dilation) {
  return (count - 1) * stride + (kernel - 1) * dilation + 1;
}

#endif

/* 2-D convolution: from sums to output bytes, and the residual operand. Order of channels: qcc_avx512vnni_conv.h. */
#ifndef QCC_AVX512VNNI_OUTPUT_H
#define QCC_AVX512VNNI_OUTPUT_H

#include "qcc_avx512vnni.h"

/* The image as the tiles see it, and what is the same for all channels. */
typedef struct {
  const int8_t *data;                   /* the first tap of the first output pixel */
  int32_t width;                        /* output pixels of a line */
  ptrdiff_t pixel, wrap;                /* bytes from output pixel to pixel; and more where a line ends */
  int32_t lines, runs, quads;           /* kernel rows, runs of a kernel row, quads of a run */
  int32_t left_out;                     /* quads of a kernel row that are left out, as they meet nothing but zeros */
  ptrdiff_t line_step, run_step;        /* bytes from kernel row to kernel row, from run to run */
  ptrdiff_t output_step, output_wrap;   /* bytes from output pixel to pixel; and more where a line ends */
  int32_t zero_point, low, high, clamps; /* clamps: whether low and high are not those of int8 */
  float integer;                         /* for qcc_requantize_bits: repeated from memory they need no vector unit */
  int32_t bits;
} qcc_conv_image;

/* The constants of a block of channels; of the last three those that the requantization needs. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias;
  const void *skip_multiplier;
  const float *scale;
  const int32_t *multiplier, *shift;
  __mmask64 lanes; /* the channels that exist */
} qcc_conv_block;

/* Four vectors of sums to 64 bytes: byte 16 * j + 4 * i + k is lane 4 * j + k of sums[i]. */
QCC_INLINE __m512i qcc_conv_requantize(const int exact, const int vectors, const __m512i *sums,
                                       const qcc_conv_image *image, const qcc_conv_block *block) {
  __m512i q[4];
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int at = 16 * (i % vectors);
    if (exact) {
      q[i] = qcc_requantize_exact(sums[i], _mm512_loadu_si512(block->multiplier + at), _mm512_loadu_si512(block->shift + at),
                                  image->zero_point);
    } else {
      q[i] = qcc_requantize_bits(sums[i], _mm512_loadu_ps(block->scale + at), _mm512_set1_ps(image->integer),
                                 _mm512_set1_epi32(image->bits));
    }
  }
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  if (image->clamps) {
    bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8((char)image->low));
    bytes = _mm512_min_epi8(bytes, _mm512_set1_epi8((char)image->high));
  }
  return bytes;
}

/* For vpshufb: bytes `first` to first + 3 of 16, each in an int32 of its own, or in both int16 of one. */
#define QCC_CONV_PLACE(exact, byte) (int32_t)((exact) ? 0x80808000u + (byte) : 0x80008000u + 0x10001u * (byte))
#define QCC_CONV_PLACES(exact, first)                                                   \
  _mm512_set4_epi32(QCC_CONV_PLACE(exact, first + 3), QCC_CONV_PLACE(exact, first + 2), \
                    QCC_CONV_PLACE(exact, first + 1), QCC_CONV_PLACE(exact, first))

/* sums += (skip + 128) * multiplier, for 64 bytes in the order of qcc_conv_requantize. */
QCC_INLINE void qcc_conv_add(const int exact, const int vectors, __m512i *sums, __m512i skip, const void *multiplier) {
  const __m512i bytes = _mm512_xor_si512(skip, _mm512_set1_epi8((char)0x80));
  const __m512i places[4] = {QCC_CONV_PLACES(exact, 0), QCC_CONV_PLACES(exact, 4), QCC_CONV_PLACES(exact, 8),
                             QCC_CONV_PLACES(exact, 12)};
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i m = _mm512_loadu_si512((const int32_t *)multiplier + 16 * (i % vectors));
    const __m512i x = _mm512_shuffle_epi8(bytes, places[i]);
    sums[i] = exact ? _mm512_add_epi32(sums[i], _mm512_mullo_epi32(x, m)) : _mm512_dpwssd_epi32(sums[i], x, m);
  }
}

/* Pixels in memory to the order of qcc_conv_requantize, and back: 4 dwords of each of `vectors`, 4 / vectors pixels. */
QCC_INLINE __m512i qcc_conv_order(const int vectors, const int back, __m512i x) {
  switch (vectors) {
    case 1: return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
    case 2:
      return _mm512_permutexvar_epi32(back ? _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
                                           : _mm512_setr_epi32(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15), x);
    case 3:
      return _mm512_permutexvar_epi32(back ? _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15)
                                           : _mm512_setr_epi32(0, 1, 2, 12, 3, 4, 5, 13, 6, 7, 8, 14, 9, 10, 11, 15), x);
    default: return x;
  }
}

/* The pixels that share 64 bytes, at `at`; `count` of them exist. */
QCC_INLINE __m512i qcc_conv_load(const int vectors, const int8_t *x, const ptrdiff_t *at, __mmask64 lanes, int32_t count) {
  if (vectors > 2) {
    return qcc_conv_order(vectors, 0, _mm512_maskz_loadu_epi8(lanes, x));
  }
  if (vectors == 2) {
    const __m256i first = _mm256_maskz_loadu_epi8((__mmask32)lanes, x);
    const __m256i second = count > 1 ? _mm256_maskz_loadu_epi8((__mmask32)lanes, x + at[1]) : first;
    return qcc_conv_order(2, 0, _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
  }
  const __mmask16 m = (__mmask16)lanes;
  __m512i pixels = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, x));
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 1 ? m : (__mmask16)0, x + at[1]), 1);
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 2 ? m : (__mmask16)0, x + at[2]), 2);
  pixels = _mm512_inserti32x4(pixels, _mm_maskz_loadu_epi8(count > 3 ? m : (__mmask16)0, x + at[3]), 3);
  return qcc_conv_order(1, 0, pixels);
}

QCC_INLINE void qcc_conv_store(const int vectors, int8_t *to, const ptrdiff_t *at, __mmask64 lanes, int32_t count, __m512i q) {
  q = qcc_conv_order(vectors, 1, q);
  if (vectors > 2) {
    _mm512_mask_storeu_epi8(to, lanes, q);
  } else if (vectors == 2) {
    _mm256_mask_storeu_epi8(to, (__mmask32)lanes, _mm512_castsi512_si256(q));
    if (count > 1) {
      _mm256_mask_storeu_epi8(to + at[1], (__mmask32)lanes, _mm512_extracti64x4_epi64(q, 1));
    }
  } else {
    _mm_mask_storeu_epi8(to, (__mmask16)lanes, _mm512_castsi512_si128(q));
    if (count > 1) {
      _mm_mask_storeu_epi8(to + at[1], (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 1));
    }
    if (count > 2) {
      _mm_mask_storeu_epi8(to + at[2], (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 2));
    }
    if (count > 3) {
      _mm_mask_storeu_epi8(to + at[3], (__mmask16)lanes, _mm512_extracti32x4_epi32(q, 3));
    }
  }
}

#endif

/* What the depthwise kernels share: vectors of `pixels` neighbouring pixels (one, if there are more than 32 channels). */
#ifndef QCC_AVX512_DEPTHWISE_H
#define QCC_AVX512_DEPTHWISE_H

#include "qcc_avx512_lanes.h"

/* Where one call writes: a block of up to 64 channels of a row of pixels. */
typedef struct {
  const float *scale;
  const int32_t *bias, *skip_multiplier;
  const int8_t *skip; /* of the block's first channel in the row, or NULL */
  int8_t *output;
  __mmask64 lanes; /* of a whole vector */
} qcc_depthwise_block;

/* The lanes of a vector from column x on that lie on the image. */
QCC_INLINE __mmask64 qcc_columns_inside(const qcc_avx512_depthwise_params *p, int32_t x, __mmask64 lanes) {
  const int32_t first = x < 0 ? -x : 0;
  const int32_t end = p->input_width - x < p->pixels ? p->input_width - x : p->pixels;
  if (first >= end) {
    return 0;
  }
  return (end == p->pixels ? lanes : qcc_first_lanes(end * p->channels)) & ~qcc_first_lanes(first * p->channels);
}

/* 64 lanes as uint8, lanes outside `inside` from `padding`. */
QCC_INLINE __m512i qcc_load_padded(const int8_t *x, __mmask64 inside, __m512i padding) {
  return qcc_centre(_mm512_mask_loadu_epi8(padding, inside, x));
}

/* Residual operand, requantization and store of the vector at output column x. */
QCC_INLINE void qcc_depthwise_finish(const qcc_avx512_depthwise_params *p, const qcc_depthwise_block *block, __m512i *acc,
                                     ptrdiff_t offset, __mmask64 lanes, qcc_lanes_output o) {
  if (block->skip) {
    qcc_lanes_add(acc, _mm512_maskz_loadu_epi8(lanes, block->skip + offset), p->skip_zero_point, block->skip_multiplier);
  }
  _mm512_mask_storeu_epi8(block->output + offset, lanes, qcc_lanes_requantize(acc, block->scale, 16, o));
}

#endif

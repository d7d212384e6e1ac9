/* A dense layer on one row of activations, with requantization and a residual operand; over qcc_dot.
 *
 * input    int8[input_channels]
 * skip     int8[output_channels], or NULL
 * weights  int8[blocks][ceil(input_channels / QCC_GROUP)][vectors][8][QCC_GROUP]: blocks of 8 vectors of 8 output channels,
 *          and what is left over in blocks of 4, 2 and 1; zero where there is no channel. The order of channels is that of
 *          qcc_avx2.h in each two vectors
 * bias     int32[output channels rounded up to 8 or 16], in the order of the vectors, with what activations as elements need
 *          and the zero_point of the input folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    float[the same], certified
 * output   int8[output_channels]; may be written over skip
 * workspace  the input as elements, and 4 bytes
 *
 * Every weight is read once: 8 vectors of sums are what hides the time of an addition.
 * Reference: Dense.int_ref, Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_AVX2_DENSE_H
#define QCC_AVX2_DENSE_H

#include "qcc_avx2_image.h"

QCC_INLINE void qcc_dense_block(const int vectors, const int8_t *x, int32_t groups, const int8_t *w, const int32_t *bias,
                                qcc_epilogue e) {
  const int32_t width = e.width;
  __m256i acc[8];
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = qcc_load(bias + 8 * v);
  }
  for (int32_t k = 0; k < groups; ++k, w += 8 * QCC_GROUP * vectors) {
    int32_t word;
    __builtin_memcpy(&word, x + (ptrdiff_t)4 * k, 4);
    const __m256i row = _mm256_set1_epi32(word);
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      qcc_dot(&acc[v], row, qcc_weights_s8(w + 8 * QCC_GROUP * v));
    }
  }
  QCC_UNROLL
  for (int v = 0; v < vectors; v += 2) {
    e.width = width - 8 * v < 16 ? width - 8 * v : 16;
    qcc_finish(vectors == 1 ? 1 : 2, &e, acc + v, acc + v, 0, 0, 0);
    e.scale += 16;
    e.output += 16;
    if (e.skip) {
      e.skip += 16;
      e.skip_multiplier += 16;
    }
  }
}

QCC_INLINE void qcc_dense(const qcc_avx2_dense_params *p, const int8_t *input, const int8_t *skip, const int8_t *weights,
                          const int32_t *bias, const int32_t *skip_multiplier, const float *scale, int8_t *output,
                          int8_t *workspace) {
  const int32_t groups = (p->input_channels + QCC_GROUP - 1) / QCC_GROUP;
  qcc_elements(QCC_ELEMENT_BYTES, workspace, input, p->input_channels, 0);
  qcc_fill(1, workspace + (ptrdiff_t)QCC_ELEMENT_BYTES * p->input_channels, 0, 4); /* the last group may read it */
  int32_t vectors;
  for (int32_t o = 0; o < p->output_channels; o += 8 * vectors) {
    const int32_t left = (p->output_channels - o + 7) / 8;
    const qcc_epilogue e = {scale + o,
                            skip_multiplier ? skip_multiplier + o : NULL,
                            skip ? skip + o : NULL,
                            output + o,
                            0,
                            p->output_channels - o,
                            p->skip_zero_point,
                            qcc_saturation(p->output_zero_point, p->low, p->high)};
    vectors = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    switch (vectors) {
      case 8: qcc_dense_block(8, workspace, groups, weights, bias + o, e); break;
      case 4: qcc_dense_block(4, workspace, groups, weights, bias + o, e); break;
      case 2: qcc_dense_block(2, workspace, groups, weights, bias + o, e); break;
      default: qcc_dense_block(1, workspace, groups, weights, bias + o, e); break;
    }
    weights += (ptrdiff_t)groups * vectors * 8 * QCC_GROUP;
  }
}

#endif

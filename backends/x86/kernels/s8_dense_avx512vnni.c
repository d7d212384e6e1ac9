/* s8_dense_avx512vnni: matrix product of a few rows with constant weights, requantized, or its accumulators as they are.
 *
 * input    int8[rows][input_channels]
 * weights  int8[blocks][ceil(input_channels / 4)][vectors][16][4], in the order in which they are read. The output
 *          channels are cut into blocks of 128, then one of 64 if more than 48 are left, then of 16, 32 or 48 (rounded
 *          up); vectors is a 16th of that
 * bias     int32[output channels rounded up to 16], with -128 * sum(w) and the zero_point of the input folded in
 * scale    float[the same], certified; for accumulators there is none
 * output   int8 or int32[rows][output_channels]; does not overlap input
 *
 * Requantizing, the channels of blocks of 64 and 128 are in the order of qcc_avx512_lanes.h (weights, bias and scale alike):
 * the pack instructions of the epilogue undo it. All others are in natural order.
 * Each weight is used once for a row, so its way from the cache is all that counts: no registers between it and the
 * multiplication, and enough accumulators to have 8 sums under way, a narrow block through several for each channel.
 * Reference: Dense.int_ref, Conv2d.int_ref (one output pixel), Requantize.int_ref.
 */
#include "qcc_avx512_lanes.h"

/* acc[v] = bias + the products of all inputs, 16 channels in each; `sets` groups of four inputs at a time. */
QCC_INLINE void block_sums(const int vectors, const int sets, const int8_t *x, int32_t inputs, const int8_t *w,
                           const int32_t *bias, __m512i *acc) {
  __m512i sum[8];
  QCC_UNROLL
  for (int i = 0; i < vectors * sets; ++i) {
    sum[i] = i < vectors ? _mm512_loadu_si512(bias + 16 * i) : _mm512_setzero_si512();
  }
  const int32_t rounds = inputs / (4 * sets);
  for (int32_t k = 0; k < rounds; ++k) {
    QCC_UNROLL
    for (int s = 0; s < sets; ++s) {
      const __m512i row = qcc_broadcast_u8(x + 4 * (k * sets + s));
      QCC_UNROLL
      for (int i = s * vectors; i < (s + 1) * vectors; ++i) {
        sum[i] = _mm512_dpbusd_epi32(sum[i], row, _mm512_loadu_si512(w + 64 * i));
      }
    }
    w += 64 * vectors * sets;
  }
  for (int32_t k = rounds * 4 * sets; k < inputs; k += 4, w += 64 * vectors) {
    const __m512i row = inputs - k >= 4 ? qcc_broadcast_u8(x + k) : qcc_broadcast_u8_part(x + k, inputs - k);
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      sum[v] = _mm512_dpbusd_epi32(sum[v], row, _mm512_loadu_si512(w + 64 * v));
    }
  }
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = sum[v];
    QCC_UNROLL
    for (int s = 1; s < sets; ++s) {
      acc[v] = _mm512_add_epi32(acc[v], sum[s * vectors + v]);
    }
  }
}

/* One block; the output has `left` channels from here on. */
QCC_INLINE void block(const int vectors, const int sets, const int8_t *x, int32_t inputs, const int8_t *w,
                      const int32_t *bias, const float *scale, const qcc_dense_params *p, int32_t left, void *output) {
  const __mmask64 lanes = qcc_first_lanes(left);
  __m512i acc[8];
  block_sums(vectors, sets, x, inputs, w, bias, acc);
  if (scale == NULL) {
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      _mm512_mask_storeu_epi32((int32_t *)output + 16 * v, (__mmask16)(lanes >> (16 * v % 64)), acc[v]);
    }
  } else if (vectors % 4 == 0) {
    const qcc_lanes_output o = qcc_lanes_saturation(p->output_zero_point, p->low, p->high);
    QCC_UNROLL
    for (int v = 0; v < vectors; v += 4) {
      const __m512i y = qcc_lanes_requantize(acc + v, scale + 16 * v, 16, o);
      _mm512_mask_storeu_epi8((int8_t *)output + 16 * v, lanes, y);
    }
  } else {
    const qcc_avx512_output o = {_mm512_set1_epi32(p->output_zero_point), _mm512_set1_epi32(p->low),
                                 _mm512_set1_epi32(p->high)};
    QCC_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const __m128i y = qcc_avx512_requantize(acc[v], _mm512_loadu_ps(scale + 16 * v), o);
      _mm_mask_storeu_epi8((int8_t *)output + 16 * v, (__mmask16)(lanes >> (16 * v)), y);
    }
  }
}

/* As functions: inlined into one loop, the set-up of all of them would precede each call. */
#define BLOCK(vectors, sets)                                                                                         \
  static __attribute__((noinline)) void block_##vectors(                                                             \
      const int8_t *x, int32_t inputs, const int8_t *w, const int32_t *bias, const float *scale,                    \
      const qcc_dense_params *p, int32_t left, void *output) {                                                       \
    block(vectors, sets, x, inputs, w, bias, scale, p, left, output);                                                \
  }
BLOCK(1, 4)
BLOCK(2, 4)
BLOCK(3, 2)
BLOCK(4, 2)
BLOCK(8, 1)

/* All rows. `bytes`: of an element of the output; scale is NULL where that is 4. */
QCC_INLINE void dense(const int bytes, const qcc_dense_params *p, const int8_t *input, const int8_t *weights,
                      const int32_t *bias, const float *scale, int8_t *output) {
  const int32_t inputs = p->input_channels, outputs = p->output_channels;
  const ptrdiff_t vector_bytes = (ptrdiff_t)((inputs + 3) / 4) * 64;
  for (int32_t row = 0; row < p->rows; ++row, input += inputs, output += (ptrdiff_t)outputs * bytes) {
    const int8_t *w = weights;
    int32_t vectors = 0;
    for (int32_t o = 0; o < outputs; o += 16 * vectors, w += vectors * vector_bytes) {
      const int32_t left = outputs - o;
      const float *s = bytes == 1 ? scale + o : NULL;
      int8_t *to = output + (ptrdiff_t)o * bytes;
      vectors = left >= 128 ? 8 : left > 48 ? 4 : (left + 15) / 16;
      switch (vectors) {
        case 8: block_8(input, inputs, w, bias + o, s, p, left, to); break;
        case 4: block_4(input, inputs, w, bias + o, s, p, left, to); break;
        case 3: block_3(input, inputs, w, bias + o, s, p, left, to); break;
        case 2: block_2(input, inputs, w, bias + o, s, p, left, to); break;
        default: block_1(input, inputs, w, bias + o, s, p, left, to); break;
      }
    }
  }
}

void qcc_s8_dense_avx512vnni(const qcc_dense_params *params, const int8_t *QCC_RESTRICT input,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                             const float *QCC_RESTRICT scale, int8_t *QCC_RESTRICT output) {
  dense(1, params, input, weights, bias, scale, output);
}

void qcc_s8_dense_accumulator_avx512vnni(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                         int32_t *QCC_RESTRICT output) {
  const qcc_dense_params p = {params->rows, params->input_channels, params->output_channels, 0, 0, 0, 0};
  dense(4, &p, input, weights, bias, NULL, (int8_t *)output);
}

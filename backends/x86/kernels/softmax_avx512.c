/* softmax_avx512: softmax over the last axis of int8, or of int32 accumulators, to int8.
 *
 *   int8    e = table[max - input[r][c]], table: int32[256], 2^23 at 0 and falling
 *   int32   u = (input[r][c] * multiplier[c] + 2^(shift[c]-1)) >> shift[c], d = max(u) - u, f = d mod 2^16
 *           e = (table[f / 256] * table[256 + f mod 256] / 2^8) / 2^(d / 2^16), rounded down at each division; table: int32[512]
 *   output[r][c] = min((256 e + total / 2) / total, 255) - 128, with total = sum e over c
 *
 * input: int8 or int32[rows][count], count < 2^17; output: int8[rows][count], may be input. multiplier, shift:
 * int32[channels], channels is 1 or count. workspace: int32[count rounded up to 16], the e of a row.
 *
 * The division is a product with 1 / total in doubles: with one half added to the integer above, the quotient is at least
 * 2^-41 from the next integer, and the roundings come to less than 2^-43.
 * Reference: Softmax.int_ref, WideSoftmax.int_ref in qcc/ir/ops/softmax.py, which state the error.
 */
#include "qcc_avx512_lanes.h"

QCC_INLINE __mmask16 lanes_from(int32_t first, int32_t count) {
  return (__mmask16)qcc_first_lanes(count - first < 16 ? count - first : 16);
}

QCC_INLINE __m512i lower_half(__m512i x) { return _mm512_cvtepi32_epi64(_mm512_castsi512_si256(x)); }

QCC_INLINE __m512i upper_half(__m512i x) { return _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(x, 1)); }

QCC_INLINE __m512i join_halves(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* The quotients of a row. */
static void divide(const int32_t *e, int64_t total, int32_t count, int8_t *output) {
  const __m512d factor = _mm512_set1_pd(256.0 / (double)total);
  const __m512d half = _mm512_set1_pd(((double)(total / 2) + 0.5) / (double)total);
  for (int32_t c = 0; c < count; c += 16) {
    const __m512d low = _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)(const void *)(e + c)));
    const __m512d high = _mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i *)(const void *)(e + c + 8)));
    __m512i q = join_halves(_mm512_cvttpd_epi32(_mm512_fmadd_pd(low, factor, half)),
                            _mm512_cvttpd_epi32(_mm512_fmadd_pd(high, factor, half)));
    q = _mm512_sub_epi32(_mm512_min_epi32(q, _mm512_set1_epi32(255)), _mm512_set1_epi32(128));
    _mm_mask_storeu_epi8(output + c, lanes_from(c, count), _mm512_cvtepi32_epi8(q));
  }
}

void qcc_s8_softmax_avx512(const qcc_softmax_params *params, const int8_t *input, const int32_t *QCC_RESTRICT table,
                           int8_t *output, void *workspace) {
  const int32_t count = params->count;
  const __m512i least = _mm512_set1_epi32(-128);
  int32_t *e = (int32_t *)workspace;
  for (int32_t r = 0; r < params->rows; ++r, input += count, output += count) {
    __m512i largest = least, total = _mm512_setzero_si512();
    for (int32_t c = 0; c < count; c += 16) {
      const __m512i x = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes_from(c, count), input + c));
      largest = _mm512_mask_max_epi32(largest, lanes_from(c, count), largest, x);
    }
    largest = _mm512_set1_epi32(_mm512_reduce_max_epi32(largest));
    for (int32_t c = 0; c < count; c += 16) {
      const __mmask16 lanes = lanes_from(c, count);
      const __m512i d = _mm512_sub_epi32(largest, _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, input + c)));
      const __m512i part = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, d, table, 4);
      _mm512_storeu_si512(e + c, part);
      total = _mm512_add_epi64(total, _mm512_add_epi64(lower_half(part), upper_half(part)));
    }
    divide(e, _mm512_reduce_add_epi64(total), count, output);
  }
}

/* u of 8 channels. */
QCC_INLINE __m512i logit(__m512i x, __m512i multiplier, __m512i shift) {
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i rounding = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one));
  return _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(x, multiplier), rounding), shift);
}

typedef struct {
  __m512i low, high; /* int64 */
} logits;

/* u of 16 channels; any number beyond the last one. */
QCC_INLINE logits row_logits(const int32_t *x, const int32_t *multiplier, const int32_t *shift, int32_t step,
                             __mmask16 lanes) {
  const __m512i values = _mm512_maskz_loadu_epi32(lanes, x);
  const __m512i m = step ? _mm512_maskz_loadu_epi32(lanes, multiplier) : _mm512_set1_epi32(*multiplier);
  const __m512i s = step ? _mm512_maskz_loadu_epi32(lanes, shift) : _mm512_set1_epi32(*shift);
  const logits u = {logit(lower_half(values), lower_half(m), lower_half(s)),
                    logit(upper_half(values), upper_half(m), upper_half(s))};
  return u;
}

/* e = 2^23 * 2^(-d / 2^16): 0 long before d reaches the bound. */
QCC_INLINE __m512i power(const int32_t *table, __m512i low, __m512i high, __mmask16 lanes) {
  const __m512i bound = _mm512_set1_epi64((int64_t)31 << 16), zero = _mm512_setzero_si512();
  const __m512i d = join_halves(_mm512_cvtepi64_epi32(_mm512_min_epi64(low, bound)),
                                _mm512_cvtepi64_epi32(_mm512_min_epi64(high, bound)));
  const __m512i byte = _mm512_set1_epi32(255);
  const __m512i coarse = _mm512_and_si512(_mm512_srli_epi32(d, 8), byte), fine = _mm512_and_si512(d, byte);
  const __m512i product = _mm512_mullo_epi32(_mm512_mask_i32gather_epi32(zero, lanes, coarse, table, 4),
                                             _mm512_mask_i32gather_epi32(zero, lanes, fine, table + 256, 4));
  return _mm512_srlv_epi32(_mm512_srli_epi32(product, 8), _mm512_srli_epi32(d, 16));
}

void qcc_s32_softmax_avx512(const qcc_wide_softmax_params *params, const int32_t *QCC_RESTRICT input,
                            const int32_t *QCC_RESTRICT multiplier, const int32_t *QCC_RESTRICT shift,
                            const int32_t *QCC_RESTRICT table, int8_t *QCC_RESTRICT output, void *workspace) {
  const int32_t count = params->count, step = params->channels == 1 ? 0 : 1;
  int32_t *e = (int32_t *)workspace;
  for (int32_t r = 0; r < params->rows; ++r, input += count, output += count) {
    __m512i largest = _mm512_set1_epi64(INT64_MIN), total = _mm512_setzero_si512();
    for (int32_t c = 0; c < count; c += 16) {
      const __mmask16 lanes = lanes_from(c, count);
      const logits u = row_logits(input + c, multiplier + c * step, shift + c * step, step, lanes);
      largest = _mm512_mask_max_epi64(largest, (__mmask8)lanes, largest, u.low);
      largest = _mm512_mask_max_epi64(largest, (__mmask8)(lanes >> 8), largest, u.high);
    }
    largest = _mm512_set1_epi64(_mm512_reduce_max_epi64(largest));
    for (int32_t c = 0; c < count; c += 16) {
      const __mmask16 lanes = lanes_from(c, count);
      const logits u = row_logits(input + c, multiplier + c * step, shift + c * step, step, lanes);
      const __m512i part =
          power(table, _mm512_sub_epi64(largest, u.low), _mm512_sub_epi64(largest, u.high), lanes);
      _mm512_storeu_si512(e + c, part);
      total = _mm512_add_epi64(total, _mm512_add_epi64(lower_half(part), upper_half(part)));
    }
    divide(e, _mm512_reduce_add_epi64(total), count, output);
  }
}

/* Vectors of 64 int8 lanes and their int32 sums.
 *
 * Interleaving four vectors of bytes makes four vectors of dwords, each dword the four bytes of one lane: what vpdpbusd
 * multiplies and adds. The unpack instructions stay within 128 bits, so dword l of result j is lane
 * 16 * (l / 4) + 4 * j + l % 4. Weights and arrays with an entry for each lane are packed in that order, [4][16]; the pack
 * instructions of the epilogue undo it.
 */
#ifndef QCC_AVX512_LANES_H
#define QCC_AVX512_LANES_H

#include "qcc_avx512_kernels.h"
#include "qcc_avx512vnni.h"

/* The first `count` lanes (64 or more: all). */
QCC_INLINE __mmask64 qcc_first_lanes(int32_t count) {
  return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

/* int8 to uint8: x + 128. */
QCC_INLINE __m512i qcc_centre(__m512i x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); }

QCC_INLINE void qcc_interleave(const __m512i *x, __m512i *quads) {
  const __m512i low01 = _mm512_unpacklo_epi8(x[0], x[1]), high01 = _mm512_unpackhi_epi8(x[0], x[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(x[2], x[3]), high23 = _mm512_unpackhi_epi8(x[2], x[3]);
  quads[0] = _mm512_unpacklo_epi16(low01, low23);
  quads[1] = _mm512_unpackhi_epi16(low01, low23);
  quads[2] = _mm512_unpacklo_epi16(high01, high23);
  quads[3] = _mm512_unpackhi_epi16(high01, high23);
}

typedef struct {
  __m512i zero_point; /* int16 */
  __m512i low, high;  /* int8 */
} qcc_lanes_output;

QCC_INLINE qcc_lanes_output qcc_lanes_saturation(int32_t zero_point, int32_t low, int32_t high) {
  const qcc_lanes_output o = {_mm512_set1_epi16((int16_t)zero_point), _mm512_set1_epi8((int8_t)low),
                              _mm512_set1_epi8((int8_t)high)};
  return o;
}

/* Sums, requantized: 64 int8 in natural order. The saturation to 16 bits lies beyond that to 8 bits, whatever zero_point. */
QCC_INLINE __m512i qcc_lanes_requantize(const __m512i *acc, const float *scale, ptrdiff_t step, qcc_lanes_output o) {
  __m512i q[4];
  QCC_UNROLL
  for (int j = 0; j < 4; ++j) {
    q[j] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[j]), _mm512_loadu_ps(scale + step * j)));
  }
  const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), o.zero_point);
  const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), o.zero_point);
  return _mm512_min_epi8(_mm512_max_epi8(_mm512_packs_epi16(a, b), o.low), o.high);
}

/* acc[j] += (skip - zero_point) * multiplier, 64 lanes. */
QCC_INLINE void qcc_lanes_add(__m512i *acc, __m512i skip, int32_t zero_point, const int32_t *multiplier) {
  const __m512i copies[4] = {skip, skip, skip, skip};
  __m512i quads[4];
  qcc_interleave(copies, quads);
  QCC_UNROLL
  for (int j = 0; j < 4; ++j) {
    const __m512i x = _mm512_sub_epi32(_mm512_srai_epi32(quads[j], 24), _mm512_set1_epi32(zero_point));
    acc[j] = _mm512_add_epi32(acc[j], _mm512_mullo_epi32(x, _mm512_loadu_si512(multiplier + 16 * j)));
  }
}

/* acc[j] += the sum of x + 128 over `count` vectors, `step` bytes apart. */
QCC_INLINE void qcc_lanes_sum(__m512i *acc, const int8_t *x, ptrdiff_t step, int32_t count, __mmask64 lanes) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (; count > 0; count -= 4, x += 4 * step) {
    __m512i bytes[4], quads[4];
    QCC_UNROLL
    for (int i = 0; i < 4; ++i) {
      bytes[i] = i < count ? qcc_centre(_mm512_maskz_loadu_epi8(lanes, x + i * step)) : _mm512_setzero_si512();
    }
    qcc_interleave(bytes, quads);
    QCC_UNROLL
    for (int j = 0; j < 4; ++j) {
      acc[j] = _mm512_dpbusd_epi32(acc[j], quads[j], ones);
    }
  }
}

#endif
